package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file is the format of an import. A line is an object with one member, which
// says what it is:
//
//	{"account":{…}}     an account, credential or key as a store has it: members
//	{"credential":{…}}  are those of the API, and with those that only a store
//	{"key":{…}}         has. Owners come first.
//	{"grant":{…}}       a key that is in use elsewhere, with all that it is for
//	{"pepper":{…}}      under which pepper the digests of the lines after it are
//	{"export":{…}}      the lines from here to the end are an export, as of a store
//	{"end":{…}}         that it is whole, if it has as many lines as this says

// importLine is a line. Exactly one member is there.
type importLine struct {
	Account    jsontext.Value `json:"account"`
	Credential jsontext.Value `json:"credential"`
	Key        jsontext.Value `json:"key"`
	Grant      jsontext.Value `json:"grant"`
	Pepper     jsontext.Value `json:"pepper"`
	Export     jsontext.Value `json:"export"`
	End        jsontext.Value `json:"end"`
}

// only returns the one member that is there, empty if there is none or another.
func (l importLine) only() (kind string, value jsontext.Value) {
	for _, m := range []struct {
		kind  string
		value jsontext.Value
	}{
		{"account", l.Account}, {"credential", l.Credential}, {"key", l.Key}, {"grant", l.Grant}, {"pepper", l.Pepper},
		{"export", l.Export}, {"end", l.End},
	} {
		if m.value == nil {
			continue
		}
		if kind != "" {
			return "", nil
		}
		kind, value = m.kind, m.value
	}
	return kind, value
}

// record reads a line. There is none of a line that only says what others are.
func (r *lineReader) record(line []byte) (kind string, record keystore.Record, err error) {
	var in importLine
	if err := json.Unmarshal(line, &in, json.RejectUnknownMembers(true)); err != nil {
		return twice(err)
	}
	kind, value := in.only()
	switch kind {
	case "account":
		record, err = readLine(value, r.account)
	case "credential":
		record, err = readLine(value, r.credential)
	case "key":
		record, err = readLine(value, r.key)
	case "grant":
		record, err = readLine(value, r.grant)
	case "pepper":
		record, err = readLine(value, r.setPepper)
	case "export":
		record, err = readLine(value, r.beginExport)
	case "end":
		record, err = readLine(value, r.endExport)
	default:
		return "", nil, errNoLine
	}
	return kind, record, err
}

// twice tells a member that is there more than once from what is no line at all.
func twice(err error) (kind string, _ keystore.Record, _ error) {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok || !errors.Is(err, jsontext.ErrDuplicateName) {
		return "", nil, errNoLine
	}
	for kind := range syntax.JSONPointer.Tokens() {
		if slices.Contains(members(reflect.TypeFor[importLine]()), kind) && syntax.JSONPointer.Parent() != "" {
			return kind, nil, refuse(errMember, "", "has a member more than once")
		}
		break
	}
	return "", nil, errNoLine
}

var errNoLine = refuse(errMalformed, "", `must be one JSON object with one member, which is "account", "credential", "key", "grant", "pepper", "export" or "end"`)

// readLine decodes the members of a line for read. What it says about bad ones
// repeats no name that it does not know: it may be a key in the wrong place.
func readLine[T any](value jsontext.Value, read func(T) (keystore.Record, error)) (keystore.Record, error) {
	var in T
	err := decodeJSON(value, &in)
	if err == nil {
		return read(in)
	}
	known := members(reflect.TypeFor[T]())
	if shown, ok := errors.AsType[*keystore.Error](err); ok && errors.Is(err, errMember) {
		if name, _, _ := strings.Cut(shown.Member, "."); slices.Contains(known, name) {
			return nil, refuse(errMember, name, shown.Detail)
		}
	}
	return nil, refuse(errMember, "", "must be an object; its members, each at most once: "+strings.Join(known, ", "))
}

// accountLine is an account as a store has it.
type accountLine struct {
	ID     field[string] `json:"id"`
	Number field[int64]  `json:"number"`
	accountMembers
	CreatedAt field[string] `json:"created_at"`
	UpdatedAt field[string] `json:"updated_at"`
	DeletedAt field[string] `json:"deleted_at"`
}

func (r *lineReader) account(in accountLine) (keystore.Record, error) {
	a := keystore.Account{Active: true}
	in.ID.set(&a.ID)
	in.Number.set(&a.Number)
	if err := in.set(&a); err != nil {
		return nil, err
	}
	if err := setTimes(
		timeMember{"created_at", in.CreatedAt, &a.CreatedAt},
		timeMember{"updated_at", in.UpdatedAt, &a.UpdatedAt},
		timeMember{"deleted_at", in.DeletedAt, &a.DeletedAt}); err != nil {
		return nil, err
	}
	return r.keyring.AccountRecord(a)
}

// credentialLine is a credential as a store has it.
type credentialLine struct {
	ID          field[string]            `json:"id"`
	AccountID   field[string]            `json:"account_id"`
	Package     field[string]            `json:"package"`
	Roles       field[[]string]          `json:"roles"`
	Active      field[bool]              `json:"active"`
	Description field[string]            `json:"description"`
	AllowedIPs  field[[]string]          `json:"allowed_ips"`
	Metadata    field[map[string]string] `json:"metadata"`
	ExpiresAt   field[string]            `json:"expires_at"`
	CreatedAt   field[string]            `json:"created_at"`
	UpdatedAt   field[string]            `json:"updated_at"`
	DeletedAt   field[string]            `json:"deleted_at"`
}

func (r *lineReader) credential(in credentialLine) (keystore.Record, error) {
	c := keystore.Credential{Active: true}
	in.ID.set(&c.ID)
	in.AccountID.set(&c.AccountID)
	in.Package.set(&c.Package)
	in.Roles.set(&c.Roles)
	in.Description.set(&c.Description)
	in.Metadata.set(&c.Metadata)
	if err := in.Active.setRequired("active", &c.Active); err != nil {
		return nil, err
	}
	if err := setParsed(in.AllowedIPs, &c.AllowedIPs, parseRanges); err != nil {
		return nil, err
	}
	if err := setTimes(
		timeMember{"expires_at", in.ExpiresAt, &c.ExpiresAt},
		timeMember{"created_at", in.CreatedAt, &c.CreatedAt},
		timeMember{"updated_at", in.UpdatedAt, &c.UpdatedAt},
		timeMember{"deleted_at", in.DeletedAt, &c.DeletedAt}); err != nil {
		return nil, err
	}
	if r.exported != nil {
		return r.keyring.ExportedCredentialRecord(c)
	}
	return r.keyring.CredentialRecord(c)
}

// materialMembers are what a key is recognised by. They are neither logged nor
// repeated.
type materialMembers struct {
	Secret     field[string] `json:"secret"`
	Digest     field[string] `json:"digest"`
	DigestKind field[string] `json:"digest_kind"`
	Hint       field[string] `json:"hint"`
}

func (r *lineReader) material(in materialMembers) (keystore.Material, error) {
	m := keystore.Material{Text: in.Secret.value, Kind: keystore.DigestKind(in.DigestKind.value), Pepper: r.pepper}
	return m, setParsed(in.Digest, &m.Digest, parseDigest)
}

// keyLine is a key as a store has it.
type keyLine struct {
	ID           field[string] `json:"id"`
	CredentialID field[string] `json:"credential_id"`
	materialMembers
	Format          field[keystore.Format] `json:"format"`
	Sealed          field[[]byte]          `json:"sealed"`
	Mailed          field[bool]            `json:"mailed"`
	CreatedAt       field[string]          `json:"created_at"`
	ActivatesAt     field[string]          `json:"activates_at"`
	ExpiresAt       field[string]          `json:"expires_at"`
	UnusedExpiresAt field[string]          `json:"unused_expires_at"`
	RevokedAt       field[string]          `json:"revoked_at"`
	RevokedReason   field[string]          `json:"revoked_reason"`
	SupersededBy    field[string]          `json:"superseded_by"`
	SupersededAt    field[string]          `json:"superseded_at"`
	StopsOnUseOf    field[string]          `json:"stops_on_use_of"`
	FirstUsedAt     field[string]          `json:"first_used_at"`
	LastUsedAt      field[string]          `json:"last_used_at"`
}

func (r *lineReader) key(in keyLine) (keystore.Record, error) {
	k := keystore.Key{
		ID: in.ID.value, CredentialID: in.CredentialID.value, Hint: in.Hint.value, Format: in.Format.value,
		Sealed: in.Sealed.value, Mailed: in.Mailed.value, RevokedReason: in.RevokedReason.value,
		SupersededBy: in.SupersededBy.value, StopsOnUseOf: in.StopsOnUseOf.value,
	}
	if err := setTimes(
		timeMember{"created_at", in.CreatedAt, &k.CreatedAt},
		timeMember{"activates_at", in.ActivatesAt, &k.ActivatesAt},
		timeMember{"expires_at", in.ExpiresAt, &k.ExpiresAt},
		timeMember{"unused_expires_at", in.UnusedExpiresAt, &k.UnusedExpiresAt},
		timeMember{"revoked_at", in.RevokedAt, &k.RevokedAt},
		timeMember{"superseded_at", in.SupersededAt, &k.SupersededAt},
		timeMember{"first_used_at", in.FirstUsedAt, &k.FirstUsedAt},
		timeMember{"last_used_at", in.LastUsedAt, &k.LastUsedAt}); err != nil {
		return nil, err
	}
	material, err := r.material(in.materialMembers)
	if err != nil {
		return nil, err
	}
	return r.keyring.KeyRecord(k, material)
}

// grantLine is a key that is in use elsewhere.
type grantLine struct {
	AccountID    field[string] `json:"account_id"`
	Email        field[string] `json:"email"`
	CredentialID field[string] `json:"credential_id"`
	materialMembers
	Package     field[string]            `json:"package"`
	Roles       field[[]string]          `json:"roles"`
	Description field[string]            `json:"description"`
	AllowedIPs  field[[]string]          `json:"allowed_ips"`
	Metadata    field[map[string]string] `json:"metadata"`
	ExpiresAt   field[string]            `json:"expires_at"`
}

func (r *lineReader) grant(in grantLine) (keystore.Record, error) {
	c := keystore.Credential{
		ID: in.CredentialID.value, Package: in.Package.value, Roles: in.Roles.value,
		Description: in.Description.value, Metadata: in.Metadata.value,
	}
	if err := setParsed(in.AllowedIPs, &c.AllowedIPs, parseRanges); err != nil {
		return nil, err
	}
	if err := setTimes(timeMember{"expires_at", in.ExpiresAt, &c.ExpiresAt}); err != nil {
		return nil, err
	}
	material, err := r.material(in.materialMembers)
	if err != nil {
		return nil, err
	}
	a := keystore.Account{ID: in.AccountID.value, Email: in.Email.value}
	return r.keyring.GrantRecord(a, c, keystore.Key{Hint: in.Hint.value}, material)
}

// pepperLine says under which pepper digests are.
type pepperLine struct {
	Fingerprint field[string] `json:"fingerprint"`
}

func (r *lineReader) setPepper(in pepperLine) (keystore.Record, error) {
	fingerprint, err := hex.DecodeString(in.Fingerprint.value)
	if err != nil || len(fingerprint) != 16 {
		return nil, refuse(keystore.ErrInvalid, "fingerprint", "must be 32 hexadecimal digits")
	}
	if !bytes.Equal(fingerprint, r.keyring.PepperFingerprint()) {
		return nil, refuse(keystore.ErrInvalid, "fingerprint", "is not that of the pepper that is configured here: configure the pepper under which the digests were made")
	}
	r.pepper = fingerprint
	return nil, nil
}

// exportLine begins an export.
type exportLine struct {
	Version field[int64] `json:"version"`
}

func (r *lineReader) beginExport(in exportLine) (keystore.Record, error) {
	if r.exported != nil {
		return nil, errCutOff
	}
	if in.Version.value != exportVersion {
		return nil, refuse(keystore.ErrInvalid, "version", fmt.Sprintf("must be %d, which is all that this program reads", exportVersion))
	}
	r.exported = map[string]int64{}
	return nil, nil
}

// endLine counts the lines of an export.
type endLine struct {
	Accounts     field[int64] `json:"accounts"`
	Credentials  field[int64] `json:"credentials"`
	Keys         field[int64] `json:"keys"`
	WaitingMails field[int64] `json:"waiting_mails"`
}

func (r *lineReader) endExport(in endLine) (keystore.Record, error) {
	if r.exported == nil {
		return nil, refuse(errMalformed, "", `ends an export that did not begin: the line "export" is missing`)
	}
	for _, kind := range []struct {
		name, member string
		said         int64
	}{
		{"account", "accounts", in.Accounts.value},
		{"credential", "credentials", in.Credentials.value},
		{"key", "keys", in.Keys.value},
	} {
		if there := r.exported[kind.name]; there != kind.said {
			return nil, refuse(keystore.ErrInvalid, kind.member, fmt.Sprintf("must be as many as there are lines of the export, which is %d: it is not whole", there))
		}
	}
	r.exported = nil
	return nil, nil
}

var errCutOff = refuse(errMalformed, "", `the export before this is cut off: its last line, "end", is missing`)

// timeMember is a time of a record.
type timeMember struct {
	name string
	in   field[string]
	into *keystore.Instant
}

// setTimes reads times; null is one that is not set.
func setTimes(times ...timeMember) error {
	for _, t := range times {
		if !t.in.present || t.in.null {
			continue
		}
		at, err := time.Parse(time.RFC3339, t.in.value)
		if *t.into = keystore.InstantOf(at); err != nil || *t.into <= 0 {
			return refuse(keystore.ErrInvalid, t.name, "must be a time after 1970 such as 2030-01-31T12:00:00.000Z (RFC 3339), or null")
		}
	}
	return nil
}

// parseDigest reads 32 bytes in hex or any base64.
func parseDigest(text string) (digest []byte, err error) {
	if len(text) == 2*32 {
		digest, err = hex.DecodeString(text)
	} else {
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		digest, err = base64.RawStdEncoding.DecodeString(text)
	}
	if err != nil || len(digest) != 32 {
		return nil, refuse(keystore.ErrInvalid, "digest", "must be 32 bytes, in hexadecimal or base64")
	}
	return digest, nil
}
