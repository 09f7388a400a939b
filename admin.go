package apikeys

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/rest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminBase is where the management API is on Caddy's admin endpoint.
const adminBase = "/api_keys"

// adminAPI serves the management API below /api_keys/ on Caddy's admin
// endpoint, where every caller is the operator and presents no key. Who may
// call the endpoint is Caddy's to check.
//
// Caddy makes it before the apps of a configuration exist and never cleans it
// up, so it holds nothing of them: each request looks the running app up.
type adminAPI struct {
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.api_keys",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Provision takes the logger.
func (a *adminAPI) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	return nil
}

// Routes returns the one route, below which the API finds its own.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	routes := rest.New(runningKeyring, a.logger).OperatorRoutes(adminBase, backupRunning)
	return []caddy.AdminRoute{{
		Pattern: adminBase + "/",
		Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			a.serve(routes, w, r)
			return nil
		}),
	}}
}

// serve answers what is on no route, or can't be answered for want of an app.
func (a *adminAPI) serve(routes *dialect.Routes, w http.ResponseWriter, r *http.Request) {
	answer := routes.Find(r)
	switch _, err := runningApp(); {
	case answer == nil:
		writeAdminProblem(w, r, "not_found", "there is nothing at this path")
	case errors.Is(err, caddy.ErrNotConfigured):
		writeAdminProblem(w, r, "not_configured", "the running configuration has no api_keys")
	default:
		answer(w, r)
	}
}

func writeAdminProblem(w http.ResponseWriter, r *http.Request, code, detail string) {
	w.Header().Set("Cache-Control", "no-store")
	dialect.NewProblem(http.StatusNotFound, code, detail, dialect.Instance(r)).Write(w)
}

// runningApp is the app of the running configuration, which a site can have
// brought in without the app being configured.
func runningApp() (*App, error) {
	app, err := caddy.ActiveContext().AppIfConfigured(appName)
	if err != nil {
		return nil, err
	}
	return app.(*App), nil
}

func runningKeyring(ctx context.Context) (*keystore.Keyring, error) {
	app, err := runningApp()
	if err != nil {
		return nil, err
	}
	return app.Keyring(ctx)
}

func backupRunning(ctx context.Context, w io.Writer) error {
	app, err := runningApp()
	if err != nil {
		return err
	}
	vault, err := app.Vault(ctx)
	if err != nil {
		return err
	}
	return vault.Backup(ctx, w)
}

// Interface guards.
var (
	_ caddy.AdminRouter = (*adminAPI)(nil)
	_ caddy.Provisioner = (*adminAPI)(nil)
)
