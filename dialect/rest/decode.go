package rest

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// This file reads bodies. What it says about a bad one names the place and
// what is expected there, and repeats nothing of it but the names of members.

// withBody makes an action of one that wants a body. All members are optional
// as far as JSON goes, so that no body at all is an empty one.
func withBody[B any](act func(*call, B) (reply, error)) action {
	return func(c *call) (reply, error) {
		var in B
		if err := c.decode(&in); err != nil {
			return reply{}, err
		}
		return act(c, in)
	}
}

func (c *call) decode(into any) error {
	body := c.sent
	if body == nil {
		var err error
		if body, err = c.readBody(); err != nil {
			return err
		}
	}
	if len(body) == 0 {
		return nil
	}
	if !isJSON(c.Header.Get("Content-Type")) {
		return refuse(errMediaType, "", "the body must be application/json")
	}
	return decodeJSON(body, into)
}

// readBody reads the body and judges the caller again, whose rights may have
// changed while the client was sending it.
func (c *call) readBody() ([]byte, error) {
	body, err := dialect.ReadBody(c.w, c.Request)
	switch {
	case errors.Is(err, dialect.ErrBodyTooLarge):
		return nil, refuse(errTooLarge, "", fmt.Sprintf("the body is larger than %d bytes", dialect.MaxBody))
	case err != nil:
		return nil, refuse(errMalformed, "", "the body could not be read to its end")
	}
	return body, c.recheck()
}

// isObject reports whether a body begins as an object does. null would be read
// as an empty one, and make what nobody asked for.
func isObject(body []byte) bool {
	return jsontext.Value(bytes.TrimLeft(body, " \t\r\n")).Kind() == '{'
}

// isJSON reports whether a Content-Type is that of JSON, or none.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return contentType == "" || (err == nil && media == "application/json")
}

// strict refuses unknown members. Repeated members and text that is not UTF-8
// are refused by default, and null where text must be is refused here: it would
// be read as an empty text.
var strict = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, _ *string) error {
		if dec.PeekKind() == jsontext.Null.Kind() {
			return errNull
		}
		return errors.ErrUnsupported // go on as usual
	})),
)

var errNull = errors.New("null where text must be")

// decodeJSON reads an object. Its errors can be shown.
func decodeJSON(body []byte, into any) error {
	err := json.Unmarshal(body, into, strict)
	var syntax *jsontext.SyntacticError
	var meaning *json.SemanticError
	switch {
	case err == nil && isObject(body):
		return nil
	case err == nil:
		return refuse(errMalformed, "", "the body must be one JSON object")
	case errors.As(err, &syntax) && errors.Is(syntax, jsontext.ErrDuplicateName):
		return refuse(errMember, dotted(syntax.JSONPointer), "is there more than once")
	case errors.As(err, &syntax):
		return malformed(syntax.ByteOffset)
	case !errors.As(err, &meaning):
		return malformed(0) // nothing but space
	case errors.Is(meaning, json.ErrUnknownName):
		return unknownMember(meaning.JSONPointer, reflect.TypeOf(into).Elem())
	case meaning.JSONPointer == "":
		return refuse(errMalformed, "", "the body must be one JSON object")
	}
	return refuse(errMember, dotted(meaning.JSONPointer), expected(meaning.GoType))
}

func malformed(offset int64) error {
	return refuse(errMalformed, "", fmt.Sprintf("the body must be one JSON object, but is not valid JSON at byte %d", offset))
}

func unknownMember(at jsontext.Pointer, body reflect.Type) error {
	name := at.LastToken()
	if slices.Contains(readOnly, name) && at.Parent() == "" {
		return refuse(errMember, name, "is read-only here; what can be set: "+strings.Join(members(body), ", "))
	}
	return refuse(errMember, dotted(at), "is not known here; what can be set: "+strings.Join(members(body), ", "))
}

// readOnly are the members that resources have.
var readOnly = slices.Concat(members(reflect.TypeFor[account]()),
	members(reflect.TypeFor[credential]()), members(reflect.TypeFor[key]()))

// members returns the names of the members that a type has in JSON.
func members(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("json"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// dotted writes where a member is as resources' errors do: attributes.color.
func dotted(at jsontext.Pointer) string {
	return strings.Join(slices.Collect(at.Tokens()), ".")
}

// expected says what a member of a type must be.
func expected(t reflect.Type) string {
	switch {
	case t == nil:
	case t.Kind() == reflect.String:
		return "must be a string"
	case t.Kind() == reflect.Bool:
		return "must be true or false"
	case t.Kind() == reflect.Slice:
		return "must be an array of strings"
	case t.Kind() == reflect.Map:
		return "must be an object whose members are strings"
	}
	return "is of the wrong type"
}
