package apikeys

import (
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// ungatedErrorRoutes names the servers whose error routes proxy without a check
// of keys before it. Caddy hands what it refuses by itself, such as a request
// without a host, to the error routes before any route of a site runs, so that a
// check there protects the backend of an error route only if it stands in that
// route. Servers without an api_keys handler are nobody's business here.
func ungatedErrorRoutes(app *caddyhttp.App) (servers []string) {
	for name, server := range app.Servers {
		if server.Errors == nil || !anyHandler(server.Routes, isGate) {
			continue
		}
		if proxiesUngated(server.Errors.Routes) {
			servers = append(servers, name)
		}
	}
	slices.Sort(servers)
	return servers
}

func isGate(h caddyhttp.MiddlewareHandler) bool {
	_, ok := h.(*Handler)
	return ok
}

// anyHandler reports whether one of the handlers of routes, at any depth, is
// what is looked for.
func anyHandler(routes caddyhttp.RouteList, is func(caddyhttp.MiddlewareHandler) bool) bool {
	for _, route := range routes {
		for _, h := range route.Handlers {
			if is(h) {
				return true
			}
			if sub, ok := h.(*caddyhttp.Subroute); ok && anyHandler(sub.Routes, is) {
				return true
			}
		}
	}
	return false
}

// proxiesUngated walks routes in their order. A gate protects what follows it in
// its list, as far as its matcher goes, which is not judged.
func proxiesUngated(routes caddyhttp.RouteList) bool {
	for _, route := range routes {
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *Handler:
				return false
			case *reverseproxy.Handler:
				return true
			case *caddyhttp.Subroute:
				if proxiesUngated(h.Routes) {
					return true
				}
				if anyHandler(h.Routes, isGate) {
					return false
				}
			}
		}
	}
	return false
}
