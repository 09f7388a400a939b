//go:build reliability

package reliability

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
)

// gateStep says that a shape of Caddyfile is asked every how manyth request; the
// next shape is asked the next ones. The first is asked all.
var gateStep = size(10, 1)

// wholeRequests are all requests that are one request.
func wholeRequests() []attack.Request {
	return slices.Concat(attack.Requests, attack.Spellings(), attack.Fields())
}

// TestWithoutAKeyNoByteReachesTheBackend asks in every way of every site, and the
// backend must not get a single byte. The control asks the same of the same sites
// without the gate: there, every request reaches the backend that the server does
// not refuse by itself.
func TestWithoutAKeyNoByteReachesTheBackend(t *testing.T) {
	a := startAttacked(t)
	requests, shapes := wholeRequests(), slices.Concat(attack.Caddyfiles, attack.BackendOnly)
	asked, reached := 0, 0
	failing := map[string]bool{} // what the server refuses by itself, and hands to error routes
	for i, shape := range shapes {
		t.Run(shape.Name, func(t *testing.T) {
			a.use(t, shape, noGate)
			arrived := 0
			for _, r := range everyNth(requests, i) {
				answer := a.ask(r.Text(a.Addr, a.issued.Text), false)
				got := len(a.backend.Taken()) > 0
				if got {
					arrived++
				}
				if i == 0 && !got {
					failing[r.Name] = true
				}
				if i == 0 && !got && !r.Refused && !refusedByServer(answer) {
					t.Errorf("control: %s: neither reaches the backend nor is refused: %.100q", r.Name, answer)
				}
			}
			if arrived == 0 && !shape.Lossy {
				t.Error("control: nothing reaches the backend without the gate")
			}
			reached += arrived

			a.use(t, shape, realGate)
			for _, r := range everyNth(requests, i) {
				if failing[r.Name] && shape.ErrorRoute {
					continue // what is documented: an error route needs a gate of its own
				}
				asked++
				answer := a.ask(r.Text(a.Addr, a.issued.Text), false)
				if got := a.backend.Taken(); len(got) > 0 {
					t.Errorf("%s: the backend got %.200q, the client %.100q", r.Name, got[0].Head, answer)
				}
			}
		})
	}
	t.Logf("%d requests without a key in %d Caddyfiles: none reached the backend; without the gate %d did", asked, len(shapes), reached)
}

func everyNth(requests []attack.Request, shape int) (some []attack.Request) {
	for i, r := range requests {
		if shape == 0 || i%gateStep == shape%gateStep {
			some = append(some, r)
		}
	}
	return some
}

// refusedByServer reports whether the server answered with an error of its own, or
// closed the connection without a word.
func refusedByServer(answer string) bool {
	return answer == "" || strings.HasPrefix(answer, "HTTP/1.1 4") || strings.HasPrefix(answer, "HTTP/1.1 5")
}

// TestNoRequestIsSmuggledWithoutAKey sends messages that can be cut into requests
// in more than one way, none of which has a key.
func TestNoRequestIsSmuggledWithoutAKey(t *testing.T) {
	a := startAttacked(t)
	messages := attack.Messages()
	for _, name := range smuggledInto() {
		shape := shapeNamed(t, name)
		a.use(t, shape, noGate)
		a.askAll(messages, "")
		reached := len(a.backend.Taken())
		if reached < len(messages)/4 {
			t.Errorf("control: %s: only %d requests of %d messages reach the backend without the gate", name, reached, len(messages))
		}
		a.use(t, shape, realGate)
		a.askAll(messages, "")
		for _, arrival := range a.backend.Taken() {
			t.Errorf("%s: the backend got %.300q", name, arrival.Head)
		}
		t.Logf("%s: %d messages; without the gate %d requests reached the backend", name, len(messages), reached)
	}
}

// smuggledInto are the names of the Caddyfiles that messages are sent to.
func smuggledInto() []string {
	return size([]string{"a site"}, []string{"a site", "headers with underscores are let through", "h2c", "nested", "strip_prefix before it", "try_files"})
}

// askAll sends all messages, several at a time: for some, the server waits. First
// are header lines of each first request.
func (a *attacked) askAll(messages []attack.Message, first string) {
	a.T.Helper()
	const clients = 32
	next := make(chan attack.Message)
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			for m := range next {
				if _, err := attack.Ask(a.Addr, m.Fill(a.Addr, a.issued.Text, first), true); err != nil {
					a.T.Error(err)
				}
			}
		})
	}
	for _, m := range messages {
		next <- m
	}
	close(next)
	asking.Wait()
}

// TestWithoutAKeyNoByteReachesTheBackendOverHTTP2 sends frames that no client
// library would.
func TestWithoutAKeyNoByteReachesTheBackendOverHTTP2(t *testing.T) {
	a := startAttacked(t)
	requests := attack.HTTP2Requests()
	a.use(t, shapeNamed(t, "h2c"), noGate)
	reached := 0
	for _, r := range requests {
		status := a.ask2(r)
		got := len(a.backend.Taken())
		reached += min(got, 1)
		if got == 0 && strings.HasPrefix(status, "2") && !slices.Contains(r.Fields, "*") {
			t.Errorf("control: %s: %s, and nothing reached the backend", r.Name, status)
		}
	}
	if reached < len(requests)/4 {
		t.Errorf("control: only %d of %d requests reach the backend without the gate", reached, len(requests))
	}
	a.use(t, shapeNamed(t, "h2c"), realGate)
	for _, r := range requests {
		status := a.ask2(r)
		if got := a.backend.Taken(); len(got) > 0 {
			t.Errorf("%s: %s, and the backend got %.200q", r.Name, status, got[0].Head)
		}
	}
	t.Logf("%d requests; without the gate %d reached the backend", len(requests), reached)
}

func (a *attacked) ask2(r attack.HTTP2) (status string) {
	a.T.Helper()
	status, err := r.Ask(a.Addr, a.issued.Text)
	if err != nil {
		a.T.Fatal(err)
	}
	return status
}
