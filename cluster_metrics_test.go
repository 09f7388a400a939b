package apikeys

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	nodesMetric  = "caddy_api_keys_cluster_nodes"
	leasedMetric = "caddy_api_keys_cluster_leased"
)

// toldOfLease waits until the metric has the value, and the log had one more line that
// says why.
func (g *gateway) toldOfLease(leased float64, line string, times int) {
	g.t.Helper()
	told := func() bool {
		log, err := os.ReadFile(filepath.Join(g.dir, "log"))
		return err == nil && strings.Count(string(log), line) == times && g.metric(leasedMetric) == leased
	}
	for deadline := time.Now().Add(20 * time.Second); !told(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("after 20 s the log does not say %q %d times, or %s is not %v", line, times, leasedMetric, leased)
		}
	}
}

func TestMetricsAndLogsTellOfALeaseThatIsLost(t *testing.T) {
	const lost, back = "the lease is over", "the shared store can be reached again"
	dsn, err := url.Parse(postgrestest.NewSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	net := badnet.Listen(t, dsn.Host)
	dsn.Host = net.Addr()
	g := start(t, strings.NewReplacer(
		"store sqlite {store}", "store postgres "+dsn.String()+" {\nlease 1s\n}", "{global}", "", "{block}", "",
		"auto_https off", "auto_https off\nlog default {\noutput file {dir}/log {\nroll_disabled\n}\nformat api_keys {\nwrap json\n}\n}").Replace(minimal))
	g.toldOfLease(1, back, 0)
	if nodes := g.metric(nodesMetric); nodes != 1 {
		t.Errorf("%v nodes, want this one", nodes)
	}
	key := g.issue(keystore.Credential{}).Text
	if a := g.get("/", "X-Api-Key", key); a.StatusCode != 200 {
		t.Fatalf("the site answers %d %s", a.StatusCode, a.body)
	}
	for outage := range 2 {
		net.Cut()
		g.toldOfLease(0, lost, outage+1)
		a := g.get("/", "X-Api-Key", key)
		if a.StatusCode != 503 || a.code() != "store_unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("without a lease the site answers %d %v %s", a.StatusCode, a.Header, a.body)
		}
		net.Heal()
		g.toldOfLease(1, back, outage+1)
	}
	if a := g.get("/", "X-Api-Key", key); a.StatusCode != 200 {
		t.Errorf("with a lease again the site answers %d %s", a.StatusCode, a.body)
	}
	log, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil || strings.Count(string(log), lost) != 2 || strings.Contains(string(log), "user=") {
		t.Errorf("the log tells more than once of an outage, or who connects to what: %v\n%s", err, log)
	}
}

func TestAStoreOfOneGatewayHasNoMetricsOfACluster(t *testing.T) {
	g := startWith(t, "", "")
	for _, name := range []string{nodesMetric, leasedMetric} {
		if strings.Contains(string(g.adminGet("/metrics")), name) {
			t.Errorf("there is %s", name)
		}
	}
}
