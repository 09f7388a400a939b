//go:build reliability

package reliability

import (
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// oracleSite answers refusals only; {leak} is a directive before the gate.
const oracleSite = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output discard
	}
	api_keys {
		store sqlite {store}
		{pepper}
		package token
		package uuid {
			format uuid
		}
		package characters {
			format alphanumeric 62
		}
	}
}
http://{addr} {
	{leak}
	api_keys {
		require any
		errors {errors}
	}
	respond "let through"
}
`

// oracle is a gateway that is asked with keys that are nearly right.
type oracle struct {
	*livetest.Gateway
	token, uuid, characters string
}

func startOracle(t *testing.T, errors, pepper, leak string) *oracle {
	t.Helper()
	o := &oracle{Gateway: livetest.StartWith(t, strings.NewReplacer("{errors}", errors, "{pepper}", pepper, "{leak}", leak).Replace(oracleSite))}
	for name, text := range map[string]*string{"token": &o.token, "uuid": &o.uuid, "characters": &o.characters} {
		*text = o.Issue(keystore.Credential{Package: name}).Text
	}
	return o
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func anyText(n int, alphabet string) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(text)
}

// withChecksum is a token that begins like this and has the right checksum.
func withChecksum(head string) string {
	sum := make([]byte, 6)
	for i, crc := len(sum)-1, crc32.ChecksumIEEE([]byte(head)); i >= 0; i-- {
		sum[i] = base62[crc%62]
		crc /= 62
	}
	return head + string(sum)
}

func unknownToken() string {
	return withChecksum("key_" + anyText(12, base62) + "_" + anyText(32, base62))
}

// nearMiss has the id of a token, another secret, and the right checksum.
func nearMiss(token string) string { return withChecksum(token[:len("key_")+13] + anyText(32, base62)) }

// oneOff is a text with one character changed at random.
func oneOff(text, alphabet string) string {
	i := rand.IntN(len(text))
	for text[i] == '-' {
		i = rand.IntN(len(text))
	}
	other := anyText(1, alphabet)
	for other[0] == text[i] {
		other = anyText(1, alphabet)
	}
	return text[:i] + other + text[i+1:]
}

func unknownUUID() string {
	hex := anyText(32, "0123456789abcdef")
	return hex[:8] + "-" + hex[8:12] + "-4" + hex[13:16] + "-a" + hex[17:20] + "-" + hex[20:]
}

// badKeys are texts that are nobody's key, some of them nearly.
func (o *oracle) badKeys() map[string]string {
	body := o.token[:len(o.token)-6]
	return map[string]string{
		"unknown": unknownToken(), "the right id": nearMiss(o.token), "one character off": withChecksum(body[:17] + oneOff(body[17:], base62)),
		"another prefix": withChecksum("kez" + body[3:]), "a longer prefix": withChecksum("k" + body), "another id": withChecksum("key_" + anyText(12, base62) + body[16:]),
		"a wrong checksum": body + "000000", "one character off, with the old checksum": o.token[:17] + oneOff(o.token[17:49], base62) + o.token[49:],
		"in capitals": strings.ToUpper(o.token), "one character short": o.token[:len(o.token)-1], "one character more": o.token + "0", "its id": o.token[4:16], "its prefix and id": o.token[:17],
		"an unknown UUID": unknownUUID(), "a UUID one digit off": oneOff(o.uuid, "0123456789abcdef"), "a UUID without dashes": strings.ReplaceAll(o.uuid, "-", ""), "a UUID in braces": "{" + o.uuid + "}",
		"unknown characters": anyText(62, base62), "characters, one off": oneOff(o.characters, base62), "one character": "x", "512 characters": anyText(512, base62),
		"513 characters": anyText(513, base62), "not ASCII": "cl\xc3\xa9", "a list": o.token + ",", "quoted": `"` + o.token + `"`, "a placeholder": "{env.HOME}", "SQL": "'OR'1'='1", "a wildcard": "%",
	}
}

// varying is what differs from one answer to the next, whatever was asked.
var varying = regexp.MustCompile(`(?m)^Date: .*\r$|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"ServerDateTime":"[^"]*"|"TimeStamp":[0-9.]+|"ExecutionTime":[0-9.]+`)

// lengthOf hides the length of a body whose times have more or fewer digits.
var lengthOf = regexp.MustCompile(`Content-Length: [0-9]+`)

// TestAllWrongKeysAreRefusedInTheSameBytes in the manner of every dialect. The
// control is a key that was revoked, which by contract is told from these.
func TestAllWrongKeysAreRefusedInTheSameBytes(t *testing.T) {
	for _, errors := range []string{"rest", "sarus", "single_invoice", "adyen", "exorde"} {
		for _, pepper := range []string{"", "pepper \"a pepper that is no key\""} {
			t.Run(errors+" "+pepper, func(t *testing.T) {
				o := startOracle(t, errors, pepper, "")
				want := o.refusal(o.token[:3])
				if !strings.HasPrefix(want, "HTTP/1.1 401") {
					t.Fatalf("a wrong key is answered %s", want)
				}
				for name, key := range o.badKeys() {
					if got := o.refusal(key); got != want {
						t.Errorf("%s is told from others:\n%s\n%s", name, got, want)
					}
				}
				if got := o.refusal(o.token); strings.HasPrefix(got, "HTTP/1.1 401") {
					t.Errorf("control: the right key is refused: %s", got)
				}
				o.revoke(t)
				if got := o.refusal(o.token); errors == "rest" && got == want {
					t.Error("control: a revoked key is not told from an unknown one")
				}
			})
		}
	}
}

// refusal is the answer to a key, without what varies.
func (o *oracle) refusal(key string) string {
	o.T.Helper()
	answer, err := attack.Ask(o.Addr, "GET / HTTP/1.1\r\nHost: "+o.Addr+"\r\nConnection: close\r\nX-API-Key: "+key+"\r\n\r\n", false)
	if err != nil {
		o.T.Fatal(err)
	}
	plain := varying.ReplaceAllString(answer, "...")
	if strings.Contains(plain, "ServerDateTime") || strings.Count(answer, "ExecutionTime") > 0 {
		plain = lengthOf.ReplaceAllString(plain, "...")
	}
	return plain
}

func (o *oracle) revoke(t *testing.T) {
	t.Helper()
	if _, err := o.Keyring().RevokeKey(t.Context(), o.token[4:16], "test"); err != nil {
		t.Fatal(err)
	}
}

// TestNoWrongKeyTakesLonger asks with keys of nobody and with near misses, in random
// order, and holds the times of their answers against each other. The control asks a
// gate that looks the id of a key up first.
func TestNoWrongKeyTakesLonger(t *testing.T) {
	for _, pepper := range []string{"", "pepper \"a pepper that is no key\""} {
		o := startOracle(t, "rest", pepper, "")
		warm, cold := o.token, o.Issue(keystore.Credential{Package: "token"}).Text
		for range 100 {
			o.refusal(warm) // it is in the cache now
		}
		for name, c := range map[string][2]func() string{
			"unknown and near misses of a key in the cache":     {unknownToken, func() string { return nearMiss(warm) }},
			"unknown and near misses of a key that nobody used": {unknownToken, func() string { return nearMiss(cold) }},
			"unknown characters and near misses":                {func() string { return anyText(62, base62) }, func() string { return oneOff(o.characters, base62) }},
			"unknown UUIDs and near misses":                     {unknownUUID, func() string { return oneOff(o.uuid, "0123456789abcdef") }},
		} {
			told, ts := differ(t, o.Addr, o.requests(c[0]), o.requests(c[1]))
			if told {
				t.Errorf("%s %s: t = %.1f", name, pepper, ts)
			}
			t.Logf("%s %s: t = %.1f", name, pepper, ts)
		}
	}
	o := startOracle(t, "rest", "", "leaky_gate")
	told, ts := differ(t, o.Addr, o.requests(unknownToken), o.requests(func() string { return nearMiss(o.token) }))
	if !told {
		t.Errorf("control: a gate that looks up the id first is not told: t = %.1f", ts)
	}
	t.Logf("control: t = %.1f", ts)
}

// requests are as many as a class has, each with a key of its own.
func (o *oracle) requests(key func() string) func() [][]byte {
	return func() (requests [][]byte) {
		for range size(3_000, 20_000) {
			requests = append(requests, get(o.Addr, key()))
		}
		return requests
	}
}

// leakyGate looks the id of a token up before it is judged, as a gate does that
// stores secrets by id.
type leakyGate struct{}

func (leakyGate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.leaky_gate", New: func() caddy.Module { return new(leakyGate) }}
}

func (leakyGate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	text := r.Header.Get("X-API-Key")
	app, err := caddy.ActiveContext().App("api_keys")
	if parts := strings.Split(text, "_"); err == nil && len(parts) == 3 {
		kr, err := app.(keyringOwner).Keyring(r.Context())
		if err != nil {
			return err
		}
		_ = kr.View(r.Context(), func(stored keystore.Reader) error {
			key, err := stored.Key(parts[1])
			if err == nil {
				_, err = stored.Credential(key.CredentialID)
			}
			return err
		})
	}
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(leakyGate{})
	httpcaddyfile.RegisterHandlerDirective("leaky_gate", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return leakyGate{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("leaky_gate", httpcaddyfile.Before, "map")
}
