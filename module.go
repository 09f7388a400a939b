// Package apikeys is an API-key gateway for Caddy: it issues, rotates, revokes
// and enforces API keys in front of existing backends.
//
// The app [App] holds what all sites share: where keys are stored and what they
// look like. The handler [Handler] answers key-management routes and lets
// nothing else through without a valid key. Both are configured with the
// Caddyfile directive api_keys.
package apikeys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/mail"

	// Every dialect comes with the gateway.
	_ "github.com/caddy-apikeys/caddy-apikeys/dialect/adyen"
	_ "github.com/caddy-apikeys/caddy-apikeys/dialect/exorde"
	_ "github.com/caddy-apikeys/caddy-apikeys/dialect/rest"
	_ "github.com/caddy-apikeys/caddy-apikeys/dialect/sarus"
	_ "github.com/caddy-apikeys/caddy-apikeys/dialect/singleinvoice"
)

func init() {
	caddy.RegisterModule(new(App))
}

// appName is the name of the app in a configuration.
const appName = "api_keys"

// App is what all sites of a configuration share: the store of the keys, the
// cache before it, and what new keys look like. It is optional: without it, the
// defaults apply.
//
// The store stays open across configuration reloads as long as its path, or its
// connection string, stays the same.
type App struct {
	// Where accounts, credentials and keys are stored.
	Store StoreConfig `json:"store,omitzero"`

	// The budget of the cache, in bytes. Default: 67108864 (64 MiB).
	CacheSize int64 `json:"cache_size,omitempty"`

	// What token keys begin with: a lower-case letter and 1 to 15 lower-case
	// letters or digits. Default: key.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// A secret without which the stored digests can't be tried against guessed
	// keys. Use a placeholder, such as {env.API_KEYS_PEPPER} or {file.<path>}.
	// Once a store was used with a pepper, it can't be used without it, nor
	// with another. Default: none.
	Pepper string `json:"pepper,omitempty"`

	// The path of a file that holds a master key of 32 bytes, in hex or base64,
	// under which the texts of new keys are sealed so that dialects which show
	// them again can. Default: none; a key's text is shown once.
	Recoverable string `json:"recoverable,omitempty"`

	// The kinds of credentials. Once one is declared, every new credential must
	// be of one, and every route that enforces must say what it requires.
	Packages []Package `json:"packages,omitempty"`

	// How keys are sent by e-mail. Default: they are not.
	Mail *MailConfig `json:"mail,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	events *caddyevents.App
	config keystore.Config
	place  place
	sender *mail.Sender
	mailer *mail.Worker

	opening sync.Mutex
	opened  atomic.Pointer[opened]
	cleaned bool
}

// Package is a declared kind of credential: what its keys look like, and what a
// new one gets.
type Package struct {
	// What credentials carry and routes require, case-sensitive.
	Name string `json:"name"`
	// The format of new keys: token, uuid or alphanumeric. Default: token.
	Format string `json:"format,omitempty"`
	// The length of alphanumeric keys, in characters, from 22 to 256.
	Length int `json:"length,omitempty"`
	// What token keys of this package begin with. Default: the app's key_prefix.
	Prefix string `json:"prefix,omitempty"`
	// The roles that a new credential gets, beside those asked for.
	Roles []string `json:"roles,omitempty"`
	// The lifetime of a new key. Default: no expiry.
	ExpiresIn caddy.Duration `json:"expires_in,omitempty"`
	// How many live keys a credential may have. Default: 10.
	MaxKeys int `json:"max_keys,omitempty"`
	// Whether keys of this package open only routes that require it by name.
	Management bool `json:"management,omitempty"`
}

// opened is what an app has open.
type opened struct {
	vault   *keystore.Vault
	keyring *keystore.Keyring
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appName,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision checks the configuration and resolves its placeholders. It opens
// and creates nothing, so that a configuration can be validated beside a
// running server.
func (app *App) Provision(ctx caddy.Context) error {
	app.ctx = ctx
	app.logger = ctx.Logger()
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	app.events = events.(*caddyevents.App)
	if app.place, err = app.Store.resolve(); err != nil {
		return err
	}
	if err := app.resolveConfig(); err != nil {
		return err
	}
	if err := app.provisionMail(); err != nil {
		return err
	}
	return registerMetrics(ctx.GetMetricsRegistry())
}

func (app *App) resolveConfig() error {
	if app.CacheSize == 0 {
		app.CacheSize = keystore.DefaultCacheSize
	}
	if err := checkCacheSize(app.CacheSize); err != nil {
		return err
	}
	pepper, err := resolveSecret("pepper", app.Pepper)
	if err != nil {
		return err
	}
	if app.Pepper != "" && len(pepper) < minPepper {
		return fmt.Errorf("pepper: it has %d characters; use at least %d random ones", len(pepper), minPepper)
	}
	app.config = keystore.Config{Prefix: app.KeyPrefix, Pepper: []byte(pepper), OnChange: app.changed}
	for _, p := range app.Packages {
		app.config.Packages = append(app.config.Packages, p.domain())
	}
	return app.config.Validate()
}

func checkCacheSize(size int64) error {
	if size < keystore.MinCacheSize || size > keystore.MaxCacheSize {
		return fmt.Errorf("cache_size %d: use at least %d and at most %d bytes, such as 64MiB", size, keystore.MinCacheSize, keystore.MaxCacheSize)
	}
	return nil
}

// minPepper is the least length of a pepper, in characters.
const minPepper = 16

func (p Package) domain() keystore.Package {
	return keystore.Package{
		Name: p.Name, Format: keystore.Format(p.Format), Length: p.Length, Prefix: p.Prefix, Roles: p.Roles,
		ExpiresIn: time.Duration(p.ExpiresIn), MaxKeys: p.MaxKeys, Management: p.Management,
	}
}

// Start opens the store, so that a configuration whose store can't be had is
// refused, and warns of what undoes its promises. Mails that wait are sent from
// then on.
func (app *App) Start() error {
	o, err := app.open(context.Background())
	if err != nil {
		return err
	}
	app.warn()
	app.startMail(o.keyring)
	return nil
}

// warn names what the rest of the configuration does to the promises: logs that
// would write keys in clear, and ways around the check of keys.
func (app *App) warn() {
	var web *caddyhttp.App
	if module, err := app.ctx.AppIfConfigured("http"); err == nil {
		web = module.(*caddyhttp.App)
	} else {
		web = new(caddyhttp.App)
	}
	for _, name := range leakingLogs(app.ctx, accessLoggerNames(web)) {
		app.logger.Warn("this log would write API keys in clear: give it the encoder \"format api_keys\"",
			zap.String("log", name))
	}
	for _, name := range ungatedErrorRoutes(web) {
		app.logger.Warn("an error route proxies without api_keys before it, and some requests reach error routes without a key: write api_keys in it too, or do not proxy there",
			zap.String("server", name))
	}
}

// Stop ends the sending of mails, and nothing else: requests may still be in
// flight, and a new configuration may share the store. Cleanup releases it.
func (app *App) Stop() error {
	app.stopMail()
	return nil
}

// Cleanup releases the store if this app acquired it.
func (app *App) Cleanup() error {
	app.opening.Lock()
	defer app.opening.Unlock()
	app.cleaned = true
	if app.opened.Load() == nil {
		return nil
	}
	_, err := vaults.Delete(app.place)
	return err
}

// Keyring opens the store if it is not open, and returns the keyring over it.
// The error is for the log.
func (app *App) Keyring(ctx context.Context) (*keystore.Keyring, error) {
	o, err := app.open(ctx)
	if err != nil {
		return nil, err
	}
	return o.keyring, nil
}

// Vault is like Keyring, for what concerns the whole store.
func (app *App) Vault(ctx context.Context) (*keystore.Vault, error) {
	o, err := app.open(ctx)
	if err != nil {
		return nil, err
	}
	return o.vault, nil
}

// errCleaned answers requests of a configuration that is gone and never opened
// its store.
var errCleaned = errors.New("this configuration is no longer in use")

// open acquires the store once. The http app may serve before this app starts,
// so requests can be the first to open it.
func (app *App) open(ctx context.Context) (*opened, error) {
	if o := app.opened.Load(); o != nil {
		return o, nil
	}
	app.opening.Lock()
	defer app.opening.Unlock()
	switch o := app.opened.Load(); {
	case o != nil:
		return o, nil
	case app.cleaned:
		return nil, errCleaned
	}
	config := app.config
	master, err := app.masterKey()
	if err != nil {
		return nil, err
	}
	config.MasterKey = master
	vault, err := app.acquireVault()
	if err != nil {
		return nil, err
	}
	keyring, err := keystore.NewKeyring(context.WithoutCancel(ctx), vault, config)
	if err != nil {
		_, _ = vaults.Delete(app.place)
		return nil, fmt.Errorf("store %v: %w", app.place, err)
	}
	o := &opened{vault, keyring}
	app.opened.Store(o)
	return o, nil
}

// masterKey reads the file of the option recoverable, nil if there is none.
func (app *App) masterKey() ([]byte, error) {
	path, err := resolve("recoverable", app.Recoverable)
	if path == "" || err != nil {
		return nil, err
	}
	return readMasterKey(path)
}

// changed tells the world of a change, by ids only.
func (app *App) changed(c keystore.Change) {
	changes.WithLabelValues(string(c.Kind)).Inc()
	ids := map[string]any{"account_id": c.AccountID, "credential_id": c.CredentialID, "key_id": c.KeyID}
	fields := []zap.Field{zap.String("change", string(c.Kind))}
	for _, name := range []string{"account_id", "credential_id", "key_id"} {
		if ids[name] == "" {
			delete(ids, name)
			continue
		}
		fields = append(fields, zap.String(name, ids[name].(string)))
	}
	app.logger.Info("changed", fields...)
	app.events.Emit(app.ctx, "api_keys."+string(c.Kind), ids)
}

// declares reports whether the app declares a package of this name.
func (app *App) declares(name string) bool {
	for _, p := range app.Packages {
		if p.Name == name {
			return true
		}
	}
	return false
}

// declared lists the declared packages for an error message.
func (app *App) declared() string {
	names := make([]string, len(app.Packages))
	for i, p := range app.Packages {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
