package rest

import (
	_ "embed"
	"net/http"
)

// document is the OpenAPI 3.1 description of the API. Its server is relative,
// so that it is right wherever the API is mounted.
//
//go:embed openapi.yaml
var document []byte

func serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document)
}
