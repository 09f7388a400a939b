package adyen

import (
	"bytes"
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// membersError is a body that has members, by their names.
type membersError struct{ names []string }

func (*membersError) Error() string { return dialect.ErrBodyUnexpected.Error() }

// Unwrap returns the kind.
func (*membersError) Unwrap() error { return dialect.ErrBodyUnexpected }

const (
	// maxMembers and maxMemberName bound what is repeated of a body's own words,
	// the latter in bytes.
	maxMembers    = 10
	maxMemberName = 64
)

// bodyError is the error of a body that was read, with the names of the members
// that should not be there.
func bodyError(body []byte, err error) error {
	if !errors.Is(err, dialect.ErrBodyUnexpected) {
		return err
	}
	return &membersError{memberNames(body)}
}

// memberNames returns the names of the first members of an object. Values are
// passed over: they may be secrets.
func memberNames(object []byte) (names []string) {
	decoder := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.ReadToken(); err != nil {
		return nil
	}
	for len(names) < maxMembers && decoder.PeekKind() == '"' {
		name, err := decoder.ReadToken()
		if err != nil {
			return names
		}
		names = append(names, presentable(name.String()))
		if decoder.SkipValue() != nil {
			return names
		}
	}
	return names
}

// presentable makes a client's own word fit for a response: short, and no key.
func presentable(name string) string {
	name = dialect.Redact(name)
	if len(name) > maxMemberName {
		name = strings.ToValidUTF8(name[:maxMemberName], "") + "…"
	}
	return name
}

func (e *membersError) invalidFields() []invalidField {
	fields := make([]invalidField, len(e.names))
	for i, name := range e.names {
		fields[i] = invalidField{Name: name, Message: "There is no such parameter; leave it out."}
	}
	return fields
}
