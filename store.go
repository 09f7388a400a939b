package apikeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/internal/options"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// StoreConfig says where keys are stored.
type StoreConfig struct {
	// The kind of store: sqlite, a file of this machine, or postgres, a PostgreSQL
	// database that several gateways share. Default: sqlite.
	Engine string `json:"engine,omitempty"`

	// The path of the SQLite file; it and its directory are made if they do not
	// exist. Default: api_keys/keys.db in Caddy's data directory.
	Path string `json:"path,omitempty"`

	// The connection string or URI of the PostgreSQL database, as libpq reads it.
	// Required for postgres. A password stands in a placeholder, such as
	// {env.API_KEYS_DSN} or {file.<path>} for the whole string, or in a file that the
	// string names with passfile.
	DSN string `json:"dsn,omitempty"`

	// For how long a gateway goes by its memory without a sign from the database,
	// and so how long a revocation waits for a gateway that does not answer. From
	// 1s to 1h. Default: 10s. For postgres only.
	Lease caddy.Duration `json:"lease,omitempty"`

	// For how much longer than its lease a gateway goes by its memory when the
	// database can't be had. Each revocation that some gateway does not confirm
	// holds everywhere only so much later. At most 1h. Default: 0. For postgres
	// only.
	StaleIfUnavailable caddy.Duration `json:"stale_if_unavailable,omitempty"`
}

const (
	engineSQLite   = "sqlite"
	enginePostgres = "postgres"

	storeSyntax = "use: store sqlite [<path>], or store postgres <dsn>"
)

// place is where a store is, and what configurations have in common that share it.
type place struct {
	engine string
	// at is the clean absolute path of a file, or the DSN of a database. It can hold a
	// password: only String is shown.
	at string
	// lease and stale are of a database.
	lease, stale time.Duration
}

// String names the store without what is secret of it.
func (p place) String() string {
	if p.engine == enginePostgres {
		return enginePostgres
	}
	return p.at
}

// resolve replaces the placeholders. It opens and connects to nothing.
func (c *StoreConfig) resolve() (place, error) {
	switch c.Engine {
	case "", engineSQLite:
		return c.resolveSQLite()
	case enginePostgres:
		return c.resolvePostgres()
	}
	return place{}, fmt.Errorf("store %q: %s", c.Engine, storeSyntax)
}

func (c *StoreConfig) resolveSQLite() (place, error) {
	if c.DSN != "" || c.Lease != 0 || c.StaleIfUnavailable != 0 {
		return place{}, errors.New("store sqlite: dsn, lease and stale_if_unavailable are for store postgres")
	}
	path, err := resolve("store sqlite", c.Path)
	if err != nil {
		return place{}, err
	}
	if path == "" {
		path = defaultStorePath()
	}
	path, err = filepath.Abs(path)
	return place{engine: engineSQLite, at: path}, err
}

// defaultStorePath is where the store is if the configuration does not say.
func defaultStorePath() string { return filepath.Join(caddy.AppDataDir(), "api_keys", "keys.db") }

func (c *StoreConfig) resolvePostgres() (place, error) {
	switch {
	case c.Path != "":
		return place{}, errors.New("store postgres: path is for store sqlite")
	case c.DSN == "":
		return place{}, errors.New("store postgres: the dsn is missing; use: store postgres <dsn>")
	case showsPassword(c.DSN):
		return place{}, errors.New("store postgres: the dsn holds a password, which everybody could read in the configuration; " +
			"write {env.<name>} or {file.<path>} instead of it or of the whole dsn, or name a passfile")
	}
	if err := c.checkTimes(); err != nil {
		return place{}, err
	}
	dsn, err := resolve("store postgres", c.DSN)
	if err != nil {
		return place{}, err
	}
	if _, err := sqlstore.ParsePostgres(dsn); err != nil {
		return place{}, err
	}
	return place{enginePostgres, dsn, cmp.Or(time.Duration(c.Lease), keystore.DefaultLease), time.Duration(c.StaleIfUnavailable)}, nil
}

func (c *StoreConfig) checkTimes() error {
	lease, stale := time.Duration(c.Lease), time.Duration(c.StaleIfUnavailable)
	if lease != 0 && (lease < keystore.MinLease || lease > keystore.MaxLease) {
		return fmt.Errorf("lease %v: use at least %v and at most %v", lease, keystore.MinLease, keystore.MaxLease)
	}
	if stale < 0 || stale > keystore.MaxLease {
		return fmt.Errorf("stale_if_unavailable %v: use at most %v", stale, keystore.MaxLease)
	}
	return nil
}

var (
	anyPlaceholder = regexp.MustCompile(`\{[^{}]+\}`)
	// passwordInDSN matches that of a URI or of a connection string that is not empty.
	passwordInDSN = regexp.MustCompile(`(?i)^\w+://[^/?#]*:[^/?#@]+@|(^|[\s?&])(ssl)?password\s*=\s*[^\s&]`)
)

// showsPassword reports whether a password stands in a DSN, other than as a
// placeholder.
func showsPassword(dsn string) bool {
	return passwordInDSN.MatchString(anyPlaceholder.ReplaceAllString(dsn, ""))
}

// open opens the store.
func (p place) open(ctx context.Context) (keystore.Store, error) {
	if p.engine == enginePostgres {
		return sqlstore.OpenPostgres(ctx, p.at)
	}
	return sqlstore.OpenSQLite(ctx, p.at)
}

// parse reads the subdirective. Syntax:
//
//	store sqlite [<path>]
//	store postgres <dsn> {
//	    lease                <duration>
//	    stale_if_unavailable <duration>
//	}
func (c *StoreConfig) parse(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("store: got no arguments; %s", storeSyntax)
	}
	c.Engine = args[0]
	switch {
	case c.Engine == engineSQLite && len(args) <= 2:
		if len(args) == 2 {
			c.Path = args[1]
		}
		return options.Parse(d, "store sqlite", nil)
	case c.Engine == enginePostgres && len(args) == 2:
		c.DSN = args[1]
		if err := options.Parse(d, "store postgres", []options.Option{
			{Name: "lease", Read: options.Duration(&c.Lease)},
			{Name: "stale_if_unavailable", Read: options.Duration(&c.StaleIfUnavailable)},
		}); err != nil {
			return err
		}
		return at(d, c.checkTimes())
	case c.Engine == engineSQLite || c.Engine == enginePostgres:
		return d.Errf("store %s: got %d arguments; %s", c.Engine, len(args)-1, storeSyntax)
	}
	return d.Errf("store %q: %s", c.Engine, storeSyntax)
}
