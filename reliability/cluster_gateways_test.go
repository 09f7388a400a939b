//go:build reliability && linux

package reliability

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

// member is a Caddy of a cluster, in a process and behind a network of its own.
type member struct {
	*served
	net *badnet.Proxy
}

// startMembers starts Caddys that share a database.
func startMembers(t *testing.T, count int) (members []*member) {
	t.Helper()
	dsn := postgrestest.NewSchema(t)
	server, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		m := &member{net: badnet.Listen(t, server.Host)}
		through := strings.Replace(dsn, server.Host, m.net.Addr(), 1)
		m.served = startServed(t, strings.ReplaceAll(outageSite, "{dsn}", through))
		members = append(members, m)
	}
	for _, m := range members {
		m.ready()
	}
	return members
}

// revoked revokes a key and returns when, as it was answered, it works nowhere. It
// tries again while the member can't reach the database.
func (m *member) revoked(key string) {
	for {
		var answer struct {
			EffectiveBy time.Time `json:"effective_by"`
		}
		switch status := m.post("/keys/"+key+"/revoke", &answer); status {
		case http.StatusOK, http.StatusAccepted:
			time.Sleep(time.Until(answer.EffectiveBy))
			return
		case http.StatusServiceUnavailable:
			time.Sleep(50 * time.Millisecond)
		default:
			m.t.Errorf("the revocation is answered %d", status)
			return
		}
	}
}

// TestNoCaddyOfAClusterAcceptsAKeyAfterTheAnsweredTime is what a client sees of three
// Caddys, of which one is cut off, or falls silent, or both of the others do.
func TestNoCaddyOfAClusterAcceptsAKeyAfterTheAnsweredTime(t *testing.T) {
	members := startMembers(t, 3)
	cut := 0
	for range size(3, 30) {
		keys := make([]raced, 5)
		for i := range keys {
			keys[i] = members[0].issueAny()
			for _, m := range members {
				eventually(t, time.Second, "a new key works", func() bool { return m.status(keys[i].text) == http.StatusOK })
			}
		}
		for _, m := range members {
			switch rand.N(4) {
			case 0:
				m.net.Cut()
				cut++
			case 1:
				m.net.BlackHole()
				cut++
			}
		}
		healing := time.AfterFunc(clusterLease/2+rand.N(clusterLease), func() { heal(members) })
		var revoking sync.WaitGroup
		for _, k := range keys {
			by := members[rand.N(len(members))]
			revoking.Go(func() {
				by.revoked(k.key)
				for _, m := range members {
					if status := m.status(k.text); status != http.StatusUnauthorized && status != http.StatusServiceUnavailable {
						t.Errorf("after the answered time a key is answered %d", status)
					}
				}
			})
		}
		revoking.Wait()
		if healing.Stop() {
			heal(members)
		}
		for _, m := range members {
			for _, k := range keys {
				eventually(t, 5*time.Second, "a revoked key is refused", func() bool { return m.status(k.text) == http.StatusUnauthorized })
			}
		}
	}
	t.Logf("%d networks failed", cut)
}

// TestNoCaddyOfAClusterAcceptsAKeyAfterTheAnsweredTimeControl asks before that time: a
// Caddy that is cut off goes by its memory.
func TestNoCaddyOfAClusterAcceptsAKeyAfterTheAnsweredTimeControl(t *testing.T) {
	members := startMembers(t, 2)
	for range 5 {
		key := members[0].issueAny()
		for range 20 {
			members[1].status(key.text)
		}
		members[1].net.Cut()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			members[0].revoked(key.key)
		}()
		accepted := 0
		for waiting := true; waiting; {
			select {
			case <-answered:
				waiting = false
			case <-time.After(10 * time.Millisecond):
				if members[1].status(key.text) == http.StatusOK {
					accepted++
				}
			}
		}
		heal(members)
		if accepted > 0 {
			return
		}
	}
	t.Error("the key was refused at once: nothing is tested")
}

func heal(members []*member) {
	for _, m := range members {
		m.net.Heal()
	}
}

// issueAny makes a key of no package.
func (m *member) issueAny() raced {
	m.t.Helper()
	var account struct{ ID string }
	m.make("/accounts", &account)
	var made madeKey
	m.make("/accounts/"+account.ID+"/credentials", &made)
	return raced{text: made.Key.Secret, key: made.Key.ID}
}

// make makes what is at that path. It tries again while the member can't reach the
// database.
func (m *member) make(path string, into any) {
	m.t.Helper()
	eventually(m.t, 5*time.Second, "something can be made at "+path, func() bool { return m.post(path, into) == http.StatusCreated })
}

// post sends an empty object to the management API.
func (m *member) post(path string, into any) int {
	r, err := http.NewRequest(http.MethodPost, m.admin+"/api_keys"+path, strings.NewReader("{}"))
	if err != nil {
		m.t.Error(err)
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	return m.do(r, into)
}
