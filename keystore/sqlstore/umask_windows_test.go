package sqlstore_test

import "testing"

func lax(*testing.T) {}
