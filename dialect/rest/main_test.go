package rest

import (
	"os"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m).Run()) }
