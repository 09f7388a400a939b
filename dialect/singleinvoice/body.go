package singleinvoice

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// modelState says what is wrong with each member of a body. It can be shown.
type modelState map[string][]string

// Error says no more than that there is something.
func (modelState) Error() string { return "invalid members" }

// member is the one that a body has.
const member = "package"

const (
	notObject = `The body must be a JSON object with the member "package", such as {"package":"Coverage"}.`
	required  = `The name of a package is required, such as {"package":"Coverage"}.`
	notText   = "The name of a package must be a string."
	unknown   = `There is no such member; the body has "package" only.`
	repeated  = "The member is there more than once."
	broken    = "The body could not be read to its end."
	tooMany   = "The account may have %d live keys and has as many: one must be revoked first."
)

// packageIn returns the package that a body names. The error is a modelState.
func packageIn(body []byte) (string, error) {
	var members map[string]jsontext.Value
	err := json.Unmarshal(body, &members)
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(syntax, jsontext.ErrDuplicateName) {
		return "", modelState{presentable(firstName(syntax.JSONPointer)): {repeated}}
	}
	if err != nil || jsontext.Value(bytes.TrimSpace(body)).Kind() != '{' { // null is read as an object without members
		return "", modelState{member: {notObject}}
	}
	return packageOf(members)
}

// packageOf finds all that is wrong with the members, not only the first.
func packageOf(members map[string]jsontext.Value) (packageName string, err error) {
	wrong := modelState{}
	value, ok := members[member]
	switch {
	case !ok:
		wrong[member] = []string{required}
	case value.Kind() != '"' || json.Unmarshal(value, &packageName) != nil:
		wrong[member] = []string{notText}
	case packageName == "":
		wrong[member] = []string{required}
	}
	for _, name := range unknownIn(members) {
		wrong[presentable(name)] = []string{unknown}
	}
	if len(wrong) > 0 {
		return "", wrong
	}
	return packageName, nil
}

// maxUnknown bounds how many unknown members an answer names.
const maxUnknown = 10

func unknownIn(members map[string]jsontext.Value) (names []string) {
	for name := range members {
		if name != member {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxUnknown)]
}

// firstName is the member of the body in which something is.
func firstName(at jsontext.Pointer) string {
	for name := range at.Tokens() {
		return name
	}
	return member
}

// maxShown bounds what is repeated of the client's own words, in bytes.
const maxShown = 100

// presentable makes the client's own words fit for an answer: they are short,
// valid UTF-8, and hold no key.
func presentable(s string) string {
	s = dialect.Redact(s)
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
