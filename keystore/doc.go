// Package keystore is the domain of API keys: accounts own credentials,
// credentials hold keys, and a key's text opens an API.
//
// [Keyring] holds every rule: what may be issued, how a rotation bounds older
// keys, what a presented text is worth at this moment. It works over a [Store],
// which only stores, made fast and coherent by a [Cache]. States are never
// stored; they are derived from a record's times and the [Clock].
//
// The package imports neither Caddy nor HTTP. All times are UTC and have
// millisecond precision; the zero time means "not set".
package keystore
