package apikeys

// The log encoder `api_keys`: what it is in Caddy, and how it reaches every part of an entry. What counts as
// a key text, and how one is found in a string, stands in redact_text.go.

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

func init() {
	caddy.RegisterModule(RedactEncoder{})
}

// RedactEncoder keeps API keys out of a log. It wraps the encoder that does the formatting, and writes
// `REDACTED` instead of
//
//   - the values of the headers, query parameters and cookies in which this server takes keys, in requests as well
//     as in error messages and other text;
//   - the `Authorization` header, and whatever follows the word `Bearer`;
//   - anything that has the shape of a key issued by this server, wherever it stands.
//
// Caddy copies each request for its logs before any handler can remove a key from it. So every log that
// receives HTTP entries needs this encoder: the default log, because errors and debug messages go there, and
// the access log of each site.
//
// A key of any other shape can't be told from other text where no such name stands before it: in a path, or under a
// header name that the server does not know as one for keys.
//
// In the Caddyfile:
//
//	format api_keys {
//	    wrap <encoder> {
//	        <options of that encoder>
//	    }
//	}
type RedactEncoder struct {
	// The encoder that formats the entries once they hold no key. Default: `json`, or `console` if the log
	// is written to a terminal.
	WrappedRaw json.RawMessage `json:"wrap,omitempty" caddy:"namespace=caddy.logging.encoders inline_key=format"`

	// redactedObject takes the fields that zap adds outside of entries, and passes them on to wrapped.
	redactedObject `json:"-"`

	wrapped   zapcore.Encoder
	isDefault bool
	ctx       caddy.Context
}

// CaddyModule returns the Caddy module information.
func (RedactEncoder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.encoders.api_keys",
		New: func() caddy.Module { return new(RedactEncoder) },
	}
}

// Provision loads the wrapped encoder.
func (e *RedactEncoder) Provision(ctx caddy.Context) error {
	e.ctx = ctx
	if e.WrappedRaw == nil {
		e.isDefault = true
		inner := new(logging.JSONEncoder)
		e.wrap(inner)
		return inner.Provision(ctx)
	}
	mod, err := ctx.LoadModule(e, "WrappedRaw")
	if err != nil {
		return fmt.Errorf("loading wrapped encoder: %w", err)
	}
	inner, ok := mod.(zapcore.Encoder)
	if !ok {
		return fmt.Errorf("wrapped module %T is not a log encoder", mod)
	}
	e.wrap(inner)
	return nil
}

// ConfigureDefaultFormat chooses `console` for a log on a terminal, unless the configuration names an encoder;
// that one is asked in turn.
func (e *RedactEncoder) ConfigureDefaultFormat(writer caddy.WriterOpener) error {
	if !e.isDefault {
		if nested, ok := e.wrapped.(caddy.ConfiguresFormatterDefault); ok {
			return nested.ConfigureDefaultFormat(writer)
		}
		return nil
	}
	if !caddy.IsWriterStandardStream(writer) || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	inner := new(logging.ConsoleEncoder)
	e.wrap(inner)
	return inner.Provision(e.ctx)
}

// UnmarshalCaddyfile sets up the encoder from Caddyfile tokens. Syntax:
//
//	api_keys {
//	    wrap <encoder> {
//	        <options of that encoder>
//	    }
//	}
//
// As in:
//
//	log {
//	    output file /var/log/caddy/access.log
//	    format api_keys {
//	        wrap console
//	    }
//	}
func (e *RedactEncoder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the encoder's name
	if d.NextArg() {
		return d.Errf("format api_keys takes no argument, but a block with `wrap <encoder>`; found %q", d.Val())
	}
	for d.NextBlock(0) {
		if d.Val() != "wrap" {
			return d.Errf("format api_keys knows only `wrap <encoder>`, not %q", d.Val())
		}
		if e.WrappedRaw != nil {
			return d.Err("format api_keys wraps one encoder only")
		}
		if !d.NextArg() {
			return d.Err("wrap needs the name of an encoder, such as json or console")
		}
		name := d.Val()
		mod, err := caddyfile.UnmarshalModule(d, "caddy.logging.encoders."+name)
		if err != nil {
			return err
		}
		if _, ok := mod.(zapcore.Encoder); !ok {
			return d.Errf("%s is not a log encoder", name)
		}
		e.WrappedRaw = caddyconfig.JSONModuleObject(mod, "format", name, nil)
	}
	return nil
}

// wrap makes inner the encoder that gets the redacted entries.
func (e *RedactEncoder) wrap(inner zapcore.Encoder) {
	e.wrapped = inner
	e.redactedObject = redactedObject{inner}
}

// Clone returns an independent copy; zap makes one for the fields of each logger.With.
func (e *RedactEncoder) Clone() zapcore.Encoder {
	clone := new(RedactEncoder)
	clone.wrap(e.wrapped.Clone())
	return clone
}

// EncodeEntry encodes the entry without the keys in it.
func (e *RedactEncoder) EncodeEntry(ent zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	ent.Message = redactText(ent.Message)
	ent.LoggerName = redactText(ent.LoggerName)
	ent.Stack = redactText(ent.Stack)
	ent.Caller.File = redactText(ent.Caller.File)
	ent.Caller.Function = redactText(ent.Caller.Function)
	if len(fields) == 0 {
		return e.wrapped.EncodeEntry(ent, nil)
	}
	return e.wrapped.EncodeEntry(ent, []zapcore.Field{zap.Inline(redactedFields(fields))})
}

// redactedFields adds fields to the encoder it is given, by way of a redactedObject.
type redactedFields []zapcore.Field

func (fields redactedFields) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	var object zapcore.ObjectEncoder = redactedObject{enc}
	for i := range fields {
		fields[i].AddTo(object)
	}
	return nil
}

// redactedObject passes fields on to the encoder in it, without keys. Numbers, times and booleans pass
// as they are: no key is one.
type redactedObject struct{ zapcore.ObjectEncoder }

func (o redactedObject) AddString(key, value string) {
	o.ObjectEncoder.AddString(redactText(key), redactField(key, value))
}

func (o redactedObject) AddByteString(key string, value []byte) {
	o.ObjectEncoder.AddByteString(redactText(key), []byte(redactField(key, string(value))))
}

func (o redactedObject) AddBinary(key string, value []byte) {
	o.ObjectEncoder.AddBinary(redactText(key), []byte(redactField(key, string(value))))
}

func (o redactedObject) AddArray(key string, array zapcore.ArrayMarshaler) error {
	if secretNames.Load().hides(key) {
		return o.ObjectEncoder.AddArray(redactText(key), redactedOnly{})
	}
	return o.ObjectEncoder.AddArray(redactText(key), redactedArray{array, isCookieHeader(key)})
}

func (o redactedObject) AddObject(key string, object zapcore.ObjectMarshaler) error {
	if secretNames.Load().hides(key) {
		o.ObjectEncoder.AddString(redactText(key), redactedText)
		return nil
	}
	return o.ObjectEncoder.AddObject(redactText(key), redactedMarshaler{object})
}

func (o redactedObject) AddReflected(key string, value any) error {
	if probe, ok := value.(*encoderProbe); ok {
		probe.guarded++
		return nil
	}
	if secretNames.Load().hides(key) {
		o.ObjectEncoder.AddString(redactText(key), redactedText)
		return nil
	}
	value, err := redactReflected(value, isCookieHeader(key))
	if err != nil {
		return err
	}
	return o.ObjectEncoder.AddReflected(redactText(key), value)
}

func (o redactedObject) OpenNamespace(key string) {
	o.ObjectEncoder.OpenNamespace(redactText(key))
}

// redactedMarshaler is an object whose fields are redacted as it writes them.
type redactedMarshaler struct{ zapcore.ObjectMarshaler }

func (m redactedMarshaler) MarshalLogObject(enc zapcore.ObjectEncoder) (err error) {
	defer recoverMarshal(&err)
	return m.ObjectMarshaler.MarshalLogObject(redactedObject{enc})
}

// redactedArray is an array whose elements are redacted as it writes them; cookie says that they are
// values of a Cookie or Set-Cookie header.
type redactedArray struct {
	zapcore.ArrayMarshaler
	cookie bool
}

func (a redactedArray) MarshalLogArray(enc zapcore.ArrayEncoder) (err error) {
	defer recoverMarshal(&err)
	return a.ArrayMarshaler.MarshalLogArray(redactedElements{enc, a.cookie})
}

// recoverMarshal turns a panic of a value's own marshaling code into an error, as zap does for Stringers. The
// wrapped encoder still closes what it opened, so that the line stays well-formed.
func recoverMarshal(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("panic while encoding: %v", cause)
	}
}

// redactedOnly stands for all values of a location that holds a key.
type redactedOnly struct{}

func (redactedOnly) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	enc.AppendString(redactedText)
	return nil
}

// redactedElements is to arrays what redactedObject is to objects.
type redactedElements struct {
	zapcore.ArrayEncoder
	cookie bool
}

func (a redactedElements) AppendString(value string) {
	a.ArrayEncoder.AppendString(redactString(value, a.cookie))
}

func (a redactedElements) AppendByteString(value []byte) {
	a.ArrayEncoder.AppendByteString([]byte(redactString(string(value), a.cookie)))
}

func (a redactedElements) AppendArray(array zapcore.ArrayMarshaler) error {
	return a.ArrayEncoder.AppendArray(redactedArray{array, a.cookie})
}

func (a redactedElements) AppendObject(object zapcore.ObjectMarshaler) error {
	return a.ArrayEncoder.AppendObject(redactedMarshaler{object})
}

func (a redactedElements) AppendReflected(value any) error {
	value, err := redactReflected(value, a.cookie)
	if err != nil {
		return err
	}
	return a.ArrayEncoder.AppendReflected(value)
}

// redactReflected returns value as strings, numbers, slices and maps, without keys. It goes by way of JSON, because
// that is what a log shows of such a value. The error says nothing of the value but its type: the text of a
// marshaling error may quote it.
func redactReflected(value any, cookie bool) (clean any, err error) {
	defer func() {
		if recover() != nil {
			clean, err = nil, fmt.Errorf("panic while encoding %T", value)
		}
	}()
	switch value := value.(type) {
	case nil:
		return nil, nil
	case string:
		return redactString(value, cookie), nil
	case []byte:
		return []byte(redactString(string(value), cookie)), nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%T can't be encoded as JSON", value)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // a float64 would round large integers
	if err := decoder.Decode(&clean); err != nil {
		return nil, fmt.Errorf("%T can't be encoded as JSON", value)
	}
	return redactGeneric(clean, cookie), nil
}

// redactGeneric redacts a value made by encoding/json.
func redactGeneric(value any, cookie bool) any {
	switch value := value.(type) {
	case string:
		return redactEncoded(value, cookie)
	case []any:
		for i := range value {
			value[i] = redactGeneric(value[i], cookie)
		}
	case map[string]any:
		names := secretNames.Load()
		members := make(map[string]any, len(value))
		for key, member := range value {
			members[redactText(key)] = redactMember(names, key, member)
		}
		return members
	}
	return value
}

// redactMember returns what a log may show of the member key of a JSON object.
func redactMember(names *redactNames, key string, value any) any {
	if !names.hides(key) {
		return redactGeneric(value, isCookieHeader(key))
	}
	if _, list := value.([]any); list {
		return []any{redactedText}
	}
	return redactedText
}

// redactEncoded redacts a string of a JSON value, which may be a []byte in base64.
func redactEncoded(s string, cookie bool) string {
	if raw, err := base64.StdEncoding.DecodeString(s); err == nil && redactString(string(raw), cookie) != string(raw) {
		return redactedText
	}
	return redactString(s, cookie)
}

// redactField returns what a log may show of a field with this name.
func redactField(key, value string) string {
	if secretNames.Load().hides(key) {
		return redactedText
	}
	return redactString(value, isCookieHeader(key))
}

// Interface guards.
var (
	_ zapcore.Encoder                  = (*RedactEncoder)(nil)
	_ caddy.Provisioner                = (*RedactEncoder)(nil)
	_ caddy.ConfiguresFormatterDefault = (*RedactEncoder)(nil)
	_ caddyfile.Unmarshaler            = (*RedactEncoder)(nil)
)
