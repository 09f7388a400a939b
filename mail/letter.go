package mail

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Letter is what a template can say. Profile fields may be empty; they hold what
// the account's owner chose, on one line.
type Letter struct {
	// AccountID and Number are the account's id and number.
	AccountID string
	Number    int64
	// Email is the address to which the mail goes.
	Email string
	// FirstName, LastName and Company are the account's profile.
	FirstName, LastName, Company string
	// Package is that of the credential, empty where none are declared.
	Package string
	// Key is the text of the new key. A template names it exactly once.
	Key string
	// UseBy is when the key stops working if it was not used, in UTC.
	UseBy time.Time
	// Expires is when the key stops working in any case, in UTC, the zero time
	// if it does not.
	Expires time.Time
	// HasOlderKey says that another key works until this one is first used.
	HasOlderKey bool
}

// DefaultText is the template of a mail's text.
const DefaultText = `Hello,

a new API key was requested for your account:

Account: {{.AccountID}}
{{- if .Package}}
Kind of key: {{.Package}}{{end}}

{{.Key}}

Use it before {{.UseBy.Format "2006-01-02 15:04"}} UTC. If it was not used by then, it expires.
Once it was used, it {{if .Expires.IsZero}}goes on working.
{{- else}}works until {{.Expires.Format "2006-01-02 15:04"}} UTC.{{end}}
{{- if .HasOlderKey}}

Your older key keeps working until the new key is first used, and stops at
that moment.{{end}}

A key from an earlier mail that was never used does not work any more.

If you did not ask for a key, there is nothing to do: ignore this mail, and
delete it. As long as the new key is not used, nothing changes.

Whoever has this mail has the key. Keep the key in a safe place, then delete
this mail.
`

// MaxTemplate is the size of a template at most, in bytes.
const MaxTemplate = 64 << 10

// parseText parses a template and tries it out: what fails with one of the
// samples would fail when a key was made already.
func parseText(text string) (*template.Template, error) {
	if text == "" {
		text = DefaultText
	}
	text = strings.TrimPrefix(text, byteOrderMark)
	switch {
	case len(text) > MaxTemplate:
		return nil, fmt.Errorf("it has %d bytes; use at most %d", len(text), MaxTemplate)
	case !utf8.ValidString(text):
		return nil, errors.New("it is not UTF-8: save it as such")
	}
	parsed, err := template.New("mail").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	for _, sample := range samples() {
		if _, err := render(parsed, sample); err != nil {
			return nil, withFields(err)
		}
	}
	return parsed, nil
}

// byteOrderMark begins files that some editors save, and would begin the mail.
const byteOrderMark = "\uFEFF"

// withFields adds what a template can name to the error of one that names
// something else.
func withFields(err error) error {
	if text := err.Error(); !strings.Contains(text, "can't evaluate field ") || !strings.Contains(text, "in type mail.Letter") {
		return err
	}
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Letter]()) {
		names = append(names, field.Name)
	}
	return fmt.Errorf("%w; the fields are %s", err, strings.Join(names, ", "))
}

// samples are letters between which templates may distinguish.
func samples() []Letter {
	const key = "key_000000000000_00000000000000000000000000000000000000"
	until := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	bare := Letter{AccountID: "sample", Number: 1, Email: "sample@example.com", Key: key, UseBy: until}
	full := bare
	full.FirstName, full.LastName, full.Company, full.Package = "Sample", "Sample", "Sample", "Sample"
	full.Expires, full.HasOlderKey = until, true
	return []Letter{bare, full}
}

// render executes a template. A text without the key would be of no use, and one
// with two could have one of them cut off unseen.
func render(text *template.Template, l Letter) (string, error) {
	var out strings.Builder
	if err := text.Execute(&out, l); err != nil {
		return "", err
	}
	if n := strings.Count(out.String(), l.Key); n != 1 {
		return "", fmt.Errorf("the text holds the key %d times: write {{.Key}} exactly once", n)
	}
	body := strings.ReplaceAll(out.String(), "\r\n", "\n")
	if strings.ContainsFunc(body, isUnprintable) {
		return "", errors.New("the text holds control characters: only line ends and tabs are allowed")
	}
	return strings.TrimRight(body, "\n") + "\n", nil
}

func isUnprintable(c rune) bool {
	return (c < ' ' && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0)
}

// letterOf is the letter of an attempt.
func letterOf(a *keystore.MailAttempt) Letter {
	l := Letter{
		AccountID: a.Account.ID, Number: a.Account.Number, Email: a.Account.Email,
		FirstName: a.Account.FirstName, LastName: a.Account.LastName, Company: a.Account.Company,
		Package: a.Package, Key: a.Text, UseBy: a.Key.StopsAt().Time(), Expires: a.Key.ExpiresAt.Time(),
	}
	if end := a.Credential.ExpiresAt.Time(); !end.IsZero() {
		if l.Expires.IsZero() || end.Before(l.Expires) {
			l.Expires = end
		}
		if end.Before(l.UseBy) {
			l.UseBy = end
		}
	}
	for _, k := range a.Previous {
		// An unused key of an earlier mail ends with this one.
		if !k.Mailed || k.FirstUsedAt != 0 {
			l.HasOlderKey = true
		}
	}
	return l
}
