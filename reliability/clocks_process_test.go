//go:build reliability && linux

package reliability

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// homeOfGo is where the go command finds its caches; the tests change HOME.
var homeOfGo = os.Getenv("HOME")

// patch is a change to a file of the source while it is compiled.
type patch struct{ file, old, new string }

// steppable makes [time.Now] read a wall clock that is off by WallStep seconds. The
// monotonic clock stays as it is, which is what happens when a wall clock is set.
var steppable = []patch{
	{"time/time.go", "import (\n", "import (\n\t\"sync/atomic\"\n"},
	{"time/time.go", "const (\n\thasMonotonic", "// WallStep is by how many seconds the wall clock is off.\nvar WallStep atomic.Int64\n\nconst (\n\thasMonotonic"},
	{"time/time.go", "sec, nsec, mono := runtimeNow()\n", "sec, nsec, mono := runtimeNow()\n\tsec += WallStep.Load()\n"},
}

// byTheWall is the control: a gateway that judges by the wall clock.
var byTheWall = patch{
	"../keystore/clock.go", "return c.start.Add(time.Since(c.origin))", "return InstantOf(time.Now())",
}

// buildStepped builds Caddy with a wall clock that can be stepped. The first time
// takes minutes, since everything is compiled anew.
func buildStepped(t *testing.T, patches ...patch) string {
	t.Helper()
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]any{"Replace": apply(t, dir, patches)})
	if err != nil {
		t.Fatal(err)
	}
	file, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "caddy")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	goTool(t, "build", "-overlay", file, "-tags", "steppedclock", "-o", binary, "./steppedclock")
	return binary
}

// goTool runs the go command and returns what it prints.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	tool := exec.Command("go", args...)
	tool.Env = append(os.Environ(), "HOME="+homeOfGo)
	out, err := tool.CombinedOutput()
	if err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// apply writes patched copies into the directory, and returns by which copy each
// file is replaced.
func apply(t *testing.T, dir string, patches []patch) map[string]string {
	t.Helper()
	replaced, root := map[string]string{}, goTool(t, "env", "GOROOT")
	for _, p := range patches {
		file := filepath.Join(root, "src", p.file)
		if strings.HasPrefix(p.file, "..") {
			file, _ = filepath.Abs(p.file)
		}
		from := replaced[file]
		if from == "" {
			from, replaced[file] = file, filepath.Join(dir, fmt.Sprint(len(replaced))+".go")
		}
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), p.old) != 1 {
			t.Fatalf("%s does not have %q once: write the patch anew", p.file, p.old)
		}
		if err := os.WriteFile(replaced[file], []byte(strings.Replace(string(text), p.old, p.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return replaced
}

// steppedSite has a throttle, too: one request for a key by e-mail in three minutes.
const steppedSite = `{
	admin {admin}
	persist_config off
	auto_https off
	api_keys {
		store sqlite {dir}/store/keys.db
		mail {
			smtp 127.0.0.1:1
			tls off
			from keys@example.com
		}
	}
}
http://{addr} {
	api_keys {
		dialect sarus /by-mail
	}
	respond "let through"
}
`

// startStepped starts such a Caddy on the store in a directory, with its wall clock
// off by a step from the beginning.
func startStepped(t *testing.T, binary, dir string, step time.Duration) *served {
	t.Helper()
	s := runServed(t, dir, steppedSite, exec.Command(binary))
	s.step(step)
	return s.ready()
}

// step sets the wall clock of the process off by so much, and sees that it is.
func (s *served) step(by time.Duration) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.stdin, int64(by/time.Second)); err != nil {
		s.t.Fatal(err)
	}
	var unix int64
	if _, err := fmt.Fscanln(s.answers, &unix); err != nil {
		s.t.Fatal(err)
	}
	if off := time.Until(time.Unix(unix, 0)) - by; off.Abs() > time.Minute {
		s.t.Fatalf("the wall clock is off by %v from where it should be", off)
	}
}

// timedKeys are keys whose times matter.
type timedKeys struct{ lasting, ending, retiring, ended string }

// instant is a time as the management API takes it.
func instant(from time.Time, after time.Duration) string {
	return from.Add(after).UTC().Format(time.RFC3339Nano)
}

// timed makes keys on a gateway whose wall clock is right, and waits until one of
// them was seen to expire.
func (s *served) timed() (k timedKeys) {
	s.t.Helper()
	k.lasting = s.expiring("").text
	k.ending = s.expiring(instant(time.Now(), 12*time.Hour)).text
	old := s.expiring("")
	k.retiring = old.text
	s.rotate(old.credential, "12h")
	k.ended = s.expiring(instant(time.Now(), 2*time.Second)).text
	for s.status(k.ended) == http.StatusOK {
		time.Sleep(50 * time.Millisecond)
	}
	return k
}

// expiring makes a key of a credential that ends at a time.
func (s *served) expiring(at string) raced {
	s.t.Helper()
	body := map[string]any{}
	if at != "" {
		body["expires_at"] = at
	}
	var account struct{ ID string }
	s.operate(http.MethodPost, "/accounts", map[string]any{}, http.StatusCreated, &account)
	var made madeKey
	s.operate(http.MethodPost, "/accounts/"+account.ID+"/credentials", body, http.StatusCreated, &made)
	return raced{made.Key.Secret, made.Key.ID, made.Credential.ID, account.ID}
}

// wrong says which keys are not judged as wanted.
func (s *served) wrong(k timedKeys, endingLives bool) (out []string) {
	s.t.Helper()
	for name, c := range map[string]struct {
		key   string
		lives bool
	}{
		"without an end": {k.lasting, true}, "that ends in 12 hours": {k.ending, endingLives},
		"in an overlap of 12 hours": {k.retiring, endingLives}, "that has ended": {k.ended, false},
	} {
		want := http.StatusUnauthorized
		if c.lives {
			want = http.StatusOK
		}
		if got := s.status(c.key); got != want {
			out = append(out, fmt.Sprintf("the key %s is answered %d, want %d", name, got, want))
		}
	}
	return out
}

// byMail asks for a key by e-mail.
func (s *served) byMail(address string) int {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.site+"/by-mail/RequestAPIKey?Email="+address, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(r, nil)
}

// throughSteps steps the wall clock of a running gateway, and says what it judges
// wrong. Each step has an address of its own, which has just been throttled.
func throughSteps(t *testing.T, s *served, k timedKeys) (wrong []string) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, step := range []time.Duration{day, -day, year, -year, 0} {
		address := fmt.Sprintf("a%d@example.com", int64(step))
		if got := s.byMail(address); got != http.StatusOK {
			t.Fatalf("the first request by e-mail is answered %d", got)
		}
		s.step(step)
		found := s.wrong(k, true)
		if got := s.byMail(address); got != http.StatusTooManyRequests {
			found = append(found, fmt.Sprintf("the throttled address is answered %d", got))
		}
		t.Logf("stepped by %v: %d judged wrong", step, len(found))
		wrong = append(wrong, found...)
	}
	return wrong
}

// TestStepsOfTheWallClock steps the wall clock of a real gateway, and restarts it
// with another one.
func TestStepsOfTheWallClock(t *testing.T) {
	if !full {
		t.Skip("compiling everything with a wall clock that can be stepped takes minutes: run with RELIABILITY=full")
	}
	const year = 365 * 24 * time.Hour
	binary, dir := buildStepped(t, steppable...), t.TempDir()
	s := startStepped(t, binary, dir, 0)
	k := s.timed()
	for _, w := range throughSteps(t, s, k) {
		t.Error(w)
	}
	s.end()

	for _, start := range []struct {
		name        string
		step        time.Duration
		endingLives bool
	}{
		{"right", 0, true}, {"a year back", -year, true}, {"a year forward", year, false}, {"right again", 0, false},
	} {
		s := startStepped(t, binary, dir, start.step)
		for _, w := range s.wrong(k, start.endingLives) {
			t.Errorf("started with the wall clock %s: %s", start.name, w)
		}
		s.end()
	}
	// The control: once the store has forgotten that time, the keys that were seen
	// expired live.
	saveTime(t, s.storePath(), time.Time{})
	s = startStepped(t, binary, dir, 0)
	if found := s.wrong(k, false); len(found) != 2 {
		t.Errorf("with the time forgotten, %d keys live again, want 2: %q", len(found), found)
	}
	s.end()
}

// TestControlAGatewayThatJudgesByTheWall is the control: the same steps change the
// verdicts of a gateway whose clock is the wall clock.
func TestControlAGatewayThatJudgesByTheWall(t *testing.T) {
	if !full {
		t.Skip("compiling everything with a wall clock that can be stepped takes minutes: run with RELIABILITY=full")
	}
	s := startStepped(t, buildStepped(t, append(steppable, byTheWall)...), t.TempDir(), 0)
	if found := throughSteps(t, s, s.timed()); len(found) == 0 {
		t.Error("the steps do not show that the gateway judges by the wall clock")
	}
}
