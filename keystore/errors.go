package keystore

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of refusal by a [Keyring], beside those of a [Store]. Compare with
// errors.Is.
var (
	// ErrInvalid means that a value is not allowed. Nothing was changed.
	ErrInvalid = errors.New("invalid")
	// ErrForbidden means that this actor may not do it. Nothing was changed.
	ErrForbidden = errors.New("forbidden")
	// ErrKeyStopped means that the key on whose behalf it is done works no more.
	// It is an [ErrForbidden] too. Nothing was changed.
	ErrKeyStopped = fmt.Errorf("key stopped: %w", ErrForbidden)
	// ErrKeyLimit means that the credential has as many live keys as it may.
	// It is an [ErrConflict] too.
	ErrKeyLimit = fmt.Errorf("key limit: %w", ErrConflict)
)

// Error is a refusal that can be shown to the caller: it names the member that
// is wrong and what is allowed, and holds neither a key's text nor a library's
// words. Unwrap gives its kind.
type Error struct {
	// Kind is one of the sentinel errors of this package.
	Kind error
	// Member is the name of the wrong member, empty where there is none.
	Member string
	// Detail is a sentence for the caller.
	Detail string
}

// Error joins member and detail.
func (e *Error) Error() string {
	if e.Member == "" {
		return e.Detail
	}
	return e.Member + ": " + e.Detail
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

func invalid(member, format string, args ...any) error {
	return &Error{ErrInvalid, member, fmt.Sprintf(format, args...)}
}

func forbidden(format string, args ...any) error {
	return &Error{ErrForbidden, "", fmt.Sprintf(format, args...)}
}

func conflict(kind error, member, format string, args ...any) error {
	return &Error{kind, member, fmt.Sprintf(format, args...)}
}

// list joins names for a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
