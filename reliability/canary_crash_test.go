//go:build reliability

package reliability

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// crashSite forwards keys, to have them in as many places of memory as can be, to a
// handler that waits, or crashes the process.
const crashSite = `{
	admin off
	persist_config off
	auto_https off
	log {
		format api_keys
	}
	api_keys {
		store sqlite {dir}/store/keys.db
	}
}
http://{addr} {
	api_keys {
		forward_key
	}
	canary_crash
}
`

// TestNoKeyTextInACrash ends a gateway by a signal and by a panic, while requests
// with a key are under way, and looks for the key in what the process leaves behind
// on its standard error: the stacks of all goroutines.
//
// The control is a panic whose value is the request.
func TestNoKeyTextInACrash(t *testing.T) {
	for _, c := range []struct {
		how     string
		stack   string
		leaking bool
	}{
		{"SIGQUIT", "crashCanary.ServeHTTP", false},
		{"/panic", "panic: crashed on purpose", false},
		{"/nil", "invalid memory address", false},
		{"/leaking", "panic: map[", true},
	} {
		t.Run(c.how, func(t *testing.T) {
			key, left := crash(t, c.how)
			if !strings.Contains(left, c.stack) || !strings.Contains(left, "goroutine ") {
				t.Errorf("control: there is no %q in what was left: %.2000s", c.stack, left)
			}
			found := leaks(map[string]string{"the crash": left}, map[string]string{"the key": key})
			if (len(found) > 0) != c.leaking {
				t.Errorf("%v", found)
			}
			t.Logf("%d bytes of stacks", len(left))
		})
	}
}

// crash starts a gateway in a process of its own, has requests wait in it, crashes
// it, and returns the key of the requests and the standard error.
func crash(t *testing.T, how string) (key, left string) {
	t.Helper()
	addr := livetest.FreeAddr(t)
	gateway := exec.Command(os.Args[0])
	gateway.Env = append(os.Environ(), childVariable+"=crashing gateway", "GOTRACEBACK=all", "CRASH_DIR="+t.TempDir(), "CRASH_ADDR="+addr)
	var stderr bytes.Buffer
	gateway.Stderr = &stderr
	stdout, err := gateway.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Process.Kill() })
	out := bufio.NewReader(stdout)
	key, err = out.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	key = strings.TrimSpace(key)
	for range 20 {
		conn := askToWait(t, addr, "/wait", key)
		defer conn.Close()
		if _, err := out.ReadString('\n'); err != nil { // it waits now
			t.Fatal(err)
		}
	}
	if how == "SIGQUIT" {
		err = gateway.Process.Signal(syscall.SIGQUIT)
	} else {
		conn := askToWait(t, addr, how, key)
		defer conn.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := gateway.Wait(); err == nil {
		t.Error("the gateway did not crash")
	}
	return key, stderr.String()
}

// askToWait sends a request with the key in every place, and does not wait for the
// answer.
func askToWait(t *testing.T, addr, path, key string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s?q=%s HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\nReferer: %s\r\n\r\n", path, key, addr, key, key); err != nil {
		t.Fatal(err)
	}
	return conn
}

func init() {
	children["crashing gateway"] = runCrashingGateway
	caddy.RegisterModule(crashCanary{})
	httpcaddyfile.RegisterHandlerDirective("canary_crash", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return crashCanary{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("canary_crash", httpcaddyfile.Before, "reverse_proxy")
}

// runCrashingGateway is the child: it prints a key, and a line for each request
// that waits.
func runCrashingGateway() {
	dir := os.Getenv("CRASH_DIR")
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	text := strings.NewReplacer("{dir}", dir, "{addr}", os.Getenv("CRASH_ADDR")).Replace(crashSite)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	key, err := firstKey(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(key)
	time.Sleep(time.Minute) // whoever forgets it is rid of it then
	os.Exit(0)
}

// keyringOwner is the app of a running gateway.
type keyringOwner interface {
	Keyring(context.Context) (*keystore.Keyring, error)
}

// firstKey makes a key in the running gateway.
func firstKey(ctx context.Context) (string, error) {
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		return "", err
	}
	kr, err := app.(keyringOwner).Keyring(ctx)
	if err != nil {
		return "", err
	}
	account, err := kr.CreateAccount(ctx, keystore.Account{})
	if err != nil {
		return "", err
	}
	issued, err := kr.Issue(ctx, keystore.Operator(), keystore.Credential{AccountID: account.ID})
	if err != nil {
		return "", err
	}
	return issued.Text, nil
}

// crashCanary crashes the process in the way that the path names, or waits.
type crashCanary struct{}

func (crashCanary) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.canary_crash", New: func() caddy.Module { return new(crashCanary) }}
}

func (crashCanary) ServeHTTP(_ http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	switch r.URL.Path {
	case "/panic":
		go panic("crashed on purpose")
	case "/leaking":
		go panic(fmt.Sprint(r.Header))
	case "/nil":
		go func() { *(*string)(nil) = r.Header.Get("X-API-Key") }()
	}
	fmt.Println("waiting")
	<-r.Context().Done()
	return r.Context().Err()
}
