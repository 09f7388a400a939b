//go:build !linux

package main

import "errors"

// dropCache has the system forget what it holds of a file.
func dropCache(string) error { return errors.ErrUnsupported }
