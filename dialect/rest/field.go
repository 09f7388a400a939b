package rest

import (
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// field is a member of a body that may be absent, null or a value.
type field[T any] struct {
	present, null bool
	value         T // zero unless the member is a value
}

// UnmarshalJSONFrom runs only if the member is present.
func (f *field[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	f.present = true
	if dec.PeekKind() == jsontext.Null.Kind() {
		f.null = true
		return dec.SkipValue()
	}
	return json.UnmarshalDecode(dec, &f.value)
}

// set writes a present member to dst; null writes the zero value.
func (f field[T]) set(dst *T) {
	if f.present {
		*dst = f.value
	}
}

// setRequired is set for a member that can't be cleared.
func (f field[T]) setRequired(member string, dst *T) error {
	if f.null {
		return refuse(keystore.ErrInvalid, member, "can't be null: it "+expected(reflect.TypeFor[T]()))
	}
	f.set(dst)
	return nil
}

// setParsed is set for a member whose value is written as text; null writes the
// zero value.
func setParsed[S, T any](f field[S], dst *T, parse func(S) (T, error)) (err error) {
	switch {
	case !f.present:
		return nil
	case f.null:
		*dst = *new(T)
		return nil
	}
	*dst, err = parse(f.value)
	return err
}

// isEmpty reports whether no member of a body is present.
func isEmpty(body any) bool { return reflect.ValueOf(body).IsZero() }
