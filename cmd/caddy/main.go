// Command caddy is Caddy with its standard modules and the api_keys gateway
// compiled in: what "xcaddy build --with github.com/caddy-apikeys/caddy-apikeys"
// would generate.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

func main() {
	caddycmd.Main()
}
