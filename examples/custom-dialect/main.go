// Command custom-dialect is Caddy with the api_keys gateway and a dialect of its
// own: what "xcaddy build --with github.com/caddy-apikeys/caddy-apikeys --with
// <the dialect's module>" would generate.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikeys/caddy-apikeys"
	_ "github.com/caddy-apikeys/caddy-apikeys/examples/custom-dialect/plaintext"
)

func main() {
	caddycmd.Main()
}
