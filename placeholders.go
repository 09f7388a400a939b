package apikeys

// What the placeholders of a configuration are replaced with, when it is
// provisioned.

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// resolve replaces the placeholders of a configuration value; one that is not
// known is an error.
func resolve(option, value string) (string, error) {
	resolved, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: %w: set it, or write the value", option, err)
	}
	return resolved, nil
}

// onlyPlaceholder matches a secret that is written elsewhere.
var onlyPlaceholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// resolveSecret is resolve for a secret: one placeholder and nothing else, or a
// text without braces. A brace that is left over belongs to a mistyped
// placeholder, which would be a secret that anybody can guess. No error repeats a
// part of a secret; the name of a placeholder is none.
func resolveSecret(option, value string) (string, error) {
	if onlyPlaceholder.MatchString(value) {
		return resolve(option, value)
	}
	if strings.ContainsAny(value, "{}") {
		return "", errors.New(option + ": it has braces that are not those of one placeholder; use {env.<name>} or {file.<path>} alone, " +
			"or a text without braces; a secret with braces can stand in such a variable or file")
	}
	return value, nil
}
