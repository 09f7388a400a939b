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
	for _, c := range []prometheus.Collector{requests, changes, mailsTotal, openStreams, cacheMisses} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
