package apikeys

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The collectors are made once and registered with the registry of every
// configuration, so that a reload neither loses a count nor collides. Their only
// label is the outcome: never a key, an account or a path.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: appName, Name: "requests_total",
		Help: "Requests that were judged, by verdict.",
	}, []string{"outcome"})
	changes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: appName, Name: "changes_total",
		Help: "Changes to accounts, credentials and keys, by kind.",
	}, []string{"outcome"})
	mailsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: appName, Name: "mails_total",
		Help: "Attempts to send a key by e-mail, by what became of them.",
	}, []string{"outcome"})
	openStreams = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: appName, Name: "streams",
		Help: "Streams that end when their key stops.",
	}, func() float64 { return float64(streams.count()) })
	cacheMisses = prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: appName, Name: "cache_misses_total",
		Help: "Verdicts that needed the store.",
	}, func() float64 { return float64(misses()) })
)

// clusterInfo tells of the shared stores that are open, of others nothing. Of several,
// which there are only during a reload to another store, it tells the worst.
type clusterInfo struct{}

var (
	clusterNodes = prometheus.NewDesc(prometheus.BuildFQName("caddy", appName, "cluster_nodes"),
		"Gateways of the cluster that may accept keys from memory, this one included.", nil, nil)
	clusterLeased = prometheus.NewDesc(prometheus.BuildFQName("caddy", appName, "cluster_leased"),
		"Whether this gateway may accept keys from memory: 0 once the shared store can't be reached for longer than the lease.", nil, nil)
)

// Describe implements prometheus.Collector.
func (clusterInfo) Describe(descs chan<- *prometheus.Desc) {
	descs <- clusterNodes
	descs <- clusterLeased
}

// Collect implements prometheus.Collector.
func (clusterInfo) Collect(metrics chan<- prometheus.Metric) {
	nodes, leased := 0, 1.0
	vaults.Range(func(_, v any) bool {
		info, shared := v.(pooledVault).Cluster()
		if !shared {
			return true
		}
		nodes = max(nodes, info.Nodes)
		if !info.Leased {
			leased = 0
		}
		return true
	})
	if nodes > 0 {
		metrics <- prometheus.MustNewConstMetric(clusterNodes, prometheus.GaugeValue, float64(nodes))
		metrics <- prometheus.MustNewConstMetric(clusterLeased, prometheus.GaugeValue, leased)
	}
}

// verdicts are the counters of requests by verdict, looked up once: the look-up
// takes a lock.
var verdicts = func() (out [keystore.Verdicts]prometheus.Counter) {
	for v := range out {
		if code := keystore.Verdict(v).String(); v > 0 {
			out[v] = requests.WithLabelValues(code)
		}
	}
	return out
}()

// misses sums the misses of all open caches.
func misses() (sum uint64) {
	vaults.Range(func(_, v any) bool {
		sum += v.(pooledVault).Misses()
		return true
	})
	return sum
}

func registerMetrics(registry prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{requests, changes, mailsTotal, openStreams, cacheMisses, clusterInfo{}} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
