package apikeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json"

	"github.com/caddy-apikeys/caddy-apikeys/dialect/rest"
)

// adminClient calls the management API on the admin endpoint of a running
// Caddy. Unlike Caddy's own client it tells the parts of an error apart.
type adminClient struct {
	address string
	base    string
	origin  string // empty for Unix sockets, which have none
	http    http.Client
	// effectiveBy is when the change holds on every node that was answered last, empty
	// if it did then.
	effectiveBy string
}

// maxAnswer bounds an answer that is read into memory, in bytes.
const maxAnswer = 64 << 20

// newAdminClient makes a client for an address in Caddy's notation, which may
// be that of a Unix socket.
func newAdminClient(address string) (*adminClient, error) {
	at, err := caddy.ParseNetworkAddress(address)
	if err != nil || at.PortRangeSize() > 1 {
		return nil, fmt.Errorf("admin address %q: use host:port or unix//path", address)
	}
	c := &adminClient{address: address, origin: "http://" + at.JoinHostPort(0)}
	c.base = c.origin + adminBase
	if at.IsUnixNetwork() {
		// A request needs a host; Caddy does not look at it here.
		c.origin, c.base = "", "http://127.0.0.1"+adminBase
		at.Host, _, _ = strings.Cut(at.Host, "|") // what follows are the socket's permissions
	}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, at.Network, at.JoinHostPort(0))
		},
	}
	return c, nil
}

// call sends body, if there is one, as JSON and returns the answer.
func (c *adminClient) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", c.address, err)
	}
	if resp.StatusCode == http.StatusAccepted {
		var said struct {
			EffectiveBy string `json:"effective_by"`
		}
		_ = json.Unmarshal(answer, &said) // whoever wants the answer finds out that it is none
		c.effectiveBy = said.EffectiveBy
	}
	return answer, nil
}

// send returns a response that is a success; the caller closes its body.
func (c *adminClient) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The error of net/http repeats method and URL.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return nil, fmt.Errorf("is Caddy running, with its admin endpoint at %s? %w", c.address, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, c.refusal(resp)
	}
	return resp, nil
}

// lines is a body that is sent as it is, one JSON object a line.
type lines struct{ io.Reader }

func (c *adminClient) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	contentType := ""
	switch body := body.(type) {
	case nil:
	case lines:
		content, contentType = body.Reader, rest.NDJSON
	default:
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("the arguments must be UTF-8: %w", err)
		}
		content, contentType = bytes.NewReader(b), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if c.origin != "" {
		req.Header.Set("Origin", c.origin)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return req, nil
}

// refusal is what an answer that is no success says.
func (c *adminClient) refusal(resp *http.Response) error {
	// The API answers with a problem, Caddy's own checks with an error.
	var said struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Error  string `json:"error"`
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = json.Unmarshal(body, &said)
	switch {
	case said.Detail != "":
		return fmt.Errorf("%s (%d %s)", said.Detail, resp.StatusCode, said.Code)
	case said.Error != "":
		return fmt.Errorf("the admin endpoint at %s refuses: %s", c.address, said.Error)
	}
	return fmt.Errorf("%s answers %s: is it a Caddy with the module api_keys?", c.address, resp.Status)
}

// decoded calls and reads the answer into T, and returns it raw too.
func decoded[T any](ctx context.Context, c *adminClient, method, path string, body any) (out T, raw []byte, err error) {
	if raw, err = c.call(ctx, method, path, body); err != nil {
		return out, nil, err
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, nil, fmt.Errorf("%s gives an answer that this version does not know: %w", c.address, err)
	}
	return out, raw, nil
}

// readList reads a list to its end. Filters are further parameters, escaped.
func readList[T any](ctx context.Context, c *adminClient, path string, filters ...string) (items []T, err error) {
	type page struct {
		Items []T     `json:"items"`
		Next  *string `json:"next"`
	}
	first := "?" + strings.Join(append([]string{"limit=1000"}, filters...), "&")
	query := first
	for {
		p, _, err := decoded[page](ctx, c, http.MethodGet, path+query, nil)
		if err != nil {
			return nil, err
		}
		items = append(items, p.Items...)
		if p.Next == nil {
			return items, nil
		}
		query = first + "&after=" + url.QueryEscape(*p.Next)
	}
}
