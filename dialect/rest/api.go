package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// API is the handlers of the management API, whoever calls.
type API struct {
	keyring func(context.Context) (*keystore.Keyring, error)
	logger  *zap.Logger
}

// New makes the API over a keyring, which is asked for at each call. An error
// means that it is not to be had now; it is for the log.
func New(keyring func(context.Context) (*keystore.Keyring, error), logger *zap.Logger) *API {
	return &API{keyring, logger}
}

// route is one call of the API. Every request passes [API.serve], which checks
// what the route says before it acts.
type route struct {
	pattern string
	// open says that the call is not for operators only: other holders have it
	// for what is their own.
	open bool
	// query names the parameters that the call knows.
	query []string
	act   action
}

// action is what a call does. An error changes nothing and is answered by
// [API.fail].
type action func(*call) (reply, error)

const (
	forOperators = false
	forHolders   = true
)

var pageParameters = []string{"limit", "after"}

// everywhere is the calls of both places. A pattern with a name in a segment
// stands after those that have a word there.
var everywhere = []route{
	{"POST /accounts", forOperators, nil, withBody(createAccount)},
	{"GET /accounts", forOperators, []string{"email", "limit", "after"}, listAccounts},
	{"GET /accounts/{account}", forHolders, nil, showAccount},
	{"PATCH /accounts/{account}", forOperators, nil, withBody(updateAccount)},
	{"DELETE /accounts/{account}", forOperators, nil, deleteAccount},

	{"POST /accounts/{account}/credentials", forOperators, nil, withBody(createCredential)},
	{"GET /accounts/{account}/credentials", forHolders, pageParameters, listCredentials},
	{"GET /credentials/{credential}", forHolders, nil, showCredential},
	{"PATCH /credentials/{credential}", forOperators, nil, withBody(updateCredential)},
	{"DELETE /credentials/{credential}", forOperators, nil, deleteCredential},
	{"POST /credentials/{credential}/rotate", forHolders, nil, withBody(rotateCredential)},

	{"GET /credentials/{credential}/keys", forHolders, pageParameters, listKeys},
	{"POST /keys/verify", forOperators, nil, withBody(verifyKey)},
	{"GET /keys/{key}", forHolders, nil, showKey},
	{"PATCH /keys/{key}", forHolders, nil, withBody(updateKey)},
	{"POST /keys/{key}/revoke", forHolders, nil, withBody(revokeKey)},
}

// withKey is the calls about the presented key.
var withKey = []route{
	{"GET /self", forHolders, nil, showSelf},
	{"POST /self/rotate", forHolders, nil, withBody(rotateSelf)},
}

// onAdmin is the calls that only the operator of the machine has.
var onAdmin = []route{
	{"POST /import", forOperators, nil, importLines},
}

// OperatorRoutes is the API for a place where every caller is the operator,
// such as Caddy's admin endpoint. It answers a snapshot that backup writes at
// GET /backup, and the records at GET /export.
func (api *API) OperatorRoutes(base string, backup func(context.Context, io.Writer) error) *dialect.Routes {
	routes := api.routes(base, func(http.ResponseWriter, *http.Request) (caller, bool) {
		return caller{}, true
	}, everywhere, onAdmin)
	routes.Handle("GET /backup", api.download(backupFile, backup))
	routes.Handle("GET /export", api.download(exportFile, api.export))
	return routes
}

// holderRoutes is the API for a place where callers present keys.
func (api *API) holderRoutes(base string, identify identifier) *dialect.Routes {
	return api.routes(base, identify, everywhere, withKey)
}

// identifier tells who calls. Whom it does not let in, it answers.
type identifier func(http.ResponseWriter, *http.Request) (caller, bool)

func (api *API) routes(base string, identify identifier, tables ...[]route) *dialect.Routes {
	routes := dialect.NewRoutes(base, api.notAllowed)
	routes.Handle("GET /openapi.yaml", serveDocument)
	for _, table := range tables {
		for _, rt := range table {
			routes.Handle(rt.pattern, api.handler(base, rt, identify))
		}
	}
	return routes
}

func (api *API) handler(base string, rt route, identify identifier) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		from, ok := identify(w, r)
		if !ok {
			return
		}
		ctx, effect := keystore.WithEffect(r.Context(), patience)
		out, err := api.serve(rt, &call{Request: r.WithContext(ctx), w: w, caller: from, base: base, forHolders: rt.open})
		if err == nil {
			out.by = effect.By
			err = out.write(w, r)
		}
		if err != nil {
			api.fail(w, r, err)
		}
	}
}

// serve runs a call: may its caller make it, is the query one, does what the path names
// exist and is it the caller's to see? Only then is the call run.
//
// An operator sees all there is, and what is not there every action refuses itself. So
// an operator's call is looked into in advance only if its answer may have been given
// before, and else when it is refused: that something is not there comes before what is
// wrong with the body.
func (api *API) serve(rt route, c *call) (reply, error) {
	if err := c.mayCall(); err != nil {
		return reply{}, err
	}
	if err := c.readQuery(rt.query); err != nil {
		return reply{}, err
	}
	if err := c.namesIDs(); err != nil {
		return reply{}, err
	}
	var err error
	if c.keyring, err = api.keyring(c.Context()); err != nil {
		return reply{}, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	if !c.caller.isOperator() || c.isIdempotent() {
		if err := c.findOwn(); err != nil {
			return reply{}, err
		}
		return c.run(rt.act)
	}
	out, err := c.run(rt.act)
	if err != nil {
		if _, _, missing := c.owner(); errors.Is(missing, keystore.ErrNotFound) {
			err = missing
		}
	}
	return out, err
}

// run reads the body, judges the caller again, gives an answer again that was given
// before, or acts.
func (c *call) run(act action) (reply, error) {
	if err := c.begin(); err != nil {
		return reply{}, err
	}
	defer c.once.End()
	if first, ok := dialect.Recorded(c.once); ok {
		return reply{first: &first}, nil
	}
	out, err := act(c)
	if errors.Is(err, keystore.ErrKeyStopped) {
		if refused := c.recheck(); refused != nil {
			err = refused
		}
	}
	return out, err
}

// call is one request to the API.
type call struct {
	*http.Request
	w      http.ResponseWriter
	caller caller
	base   string
	// forHolders says that the call is not for operators only.
	forHolders bool
	query      url.Values
	keyring    *keystore.Keyring
	// once is set if the request has an Idempotency-Key.
	once *keystore.Once
	// sent is the body if it was read before the action.
	sent []byte
}

// reply is what a call answers when it is done.
type reply struct {
	status int
	// location is the path of what was made, empty where nothing was.
	location string
	body     any // nil where there is none
	// ends says that something ended by the change that is reported.
	ends bool
	// first, if set, is the whole reply: it was given before.
	first *dialect.Reply
	// by is when the change holds on every node at the latest, zero if it does now.
	by keystore.Instant
}

func ok(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }

// ended answers a change by which something ended.
func ended(body any) (reply, error) {
	return reply{status: http.StatusOK, body: body, ends: true}, nil
}

func (c *call) created(kind, id string, body any) (reply, error) {
	return reply{status: http.StatusCreated, location: c.base + "/" + kind + "/" + id, body: body}, nil
}

var done = reply{status: http.StatusNoContent}

// encode writes the reply as it is sent when the change holds on every node. The
// members of maps are sorted, so that a reply that is recorded and one that is sent
// are the same bytes.
func (out reply) encode() (dialect.Reply, error) {
	if out.first != nil {
		return *out.first, nil
	}
	encoded := dialect.Reply{Status: out.status, Header: http.Header{}, Ends: out.ends}
	if out.body != nil {
		body, err := json.Marshal(out.body, json.Deterministic(true))
		if err != nil {
			return dialect.Reply{}, fmt.Errorf("writing an answer: %w", err)
		}
		encoded.Body = body
		encoded.Header.Set("Content-Type", "application/json")
	}
	if out.location != "" {
		encoded.Header.Set("Location", out.location)
	}
	return encoded, nil
}

// write sends the reply. After an error nothing is sent.
func (out reply) write(w http.ResponseWriter, r *http.Request) error {
	encoded, err := out.encode()
	if err == nil && out.by != 0 {
		encoded, err = accepted(encoded, out.by)
	}
	if err != nil {
		return err
	}
	encoded.Write(w, r)
	return nil
}
