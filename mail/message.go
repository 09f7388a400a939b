package mail

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// message is a mail as it goes over the wire, and its envelope.
type message struct {
	from, to string // in angle brackets
	// utf8 says that an address holds more than ASCII, which not every server
	// takes.
	utf8 bool
	data []byte
}

const (
	// maxHeaderLine is where header lines are folded, of RFC 2047.
	maxHeaderLine = 76
	// maxLine is how long SMTP lets a line be, without its end.
	maxLine = 998
)

// compose writes the mail of an attempt. What a stranger chose stands in the
// address, which is one, and in the text; the headers are the operator's.
func (s *Sender) compose(a *keystore.MailAttempt, now time.Time) (*message, error) {
	body, err := render(s.text, letterOf(a))
	if err != nil {
		return nil, &templateError{s.file, err}
	}
	to, err := netmail.ParseAddress(a.Account.Email)
	if err != nil || !keystore.Mailable(a.Account.Email) {
		return nil, errAddress
	}
	to.Name = ""
	text, encoding := encode(body)
	var out bytes.Buffer
	for _, header := range [][2]string{
		{"Date", now.Format(time.RFC1123Z)},
		{"From", s.from.String()},
		{"To", to.String()},
		{"Subject", mime.QEncoding.Encode("utf-8", s.subject)},
		{"Message-ID", s.messageID(a)},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", encoding},
	} {
		out.WriteString(fold(header[0] + ": " + header[1]))
	}
	out.WriteString("\r\n")
	out.Write(text)
	from := netmail.Address{Address: s.from.Address}
	return &message{from.String(), to.String(), !isASCII(to.Address), out.Bytes()}, nil
}

// errAddress is an address of an account that can't stand in a mail.
var errAddress = errors.New("the account's e-mail address is not one")

// templateError is why a template that loaded failed. The text of the cause may
// hold what the account's owner chose, so it tells only where that was.
type templateError struct {
	file  string
	cause error
}

func (e *templateError) Error() string {
	place, cause := e.file, e.cause.Error()
	if _, executed := e.cause.(template.ExecError); executed {
		cause = "it must suit every account, also where a field is empty or short"
		if at := position.FindStringSubmatch(e.cause.Error()); at != nil {
			place += ":" + at[1]
		}
	}
	return fmt.Sprintf("the template %s failed for this account: %s; change it, then run caddy reload --force", place, cause)
}

// position is the line and column at which text/template says that a template
// failed.
var position = regexp.MustCompile(`^template: [^:]*:(\d+:\d+): `)

// messageID is of the mail and its attempt, so that the logs of mail servers and
// of the gateway tell of the same thing.
func (s *Sender) messageID(a *keystore.MailAttempt) string {
	domain := s.from.Address[strings.LastIndexByte(s.from.Address, '@')+1:]
	return fmt.Sprintf("<%s.%d@%s>", a.ID, a.Attempts, domain)
}

// fold breaks a header at spaces, which unfolding gives back. Words stay whole.
func fold(header string) string {
	var out strings.Builder
	length := 0
	for i, word := range strings.Split(header, " ") {
		switch {
		case i == 0:
		case word != "" && length+1+len(word) > maxHeaderLine:
			out.WriteString("\r\n ")
			length = 1
		default:
			out.WriteByte(' ')
			length++
		}
		out.WriteString(word)
		length += len(word)
	}
	return out.String() + "\r\n"
}

// encode leaves text as it is wherever it can, so that a key stands in the mail
// letter by letter.
func encode(body string) (encoded []byte, encoding string) {
	lines := strings.ReplaceAll(body, "\n", "\r\n")
	if isASCII(body) && longestLine(body) <= maxLine {
		return []byte(lines), "7bit"
	}
	var out bytes.Buffer
	w := quotedprintable.NewWriter(&out)
	// A buffer takes everything.
	_, _ = w.Write([]byte(lines))
	_ = w.Close()
	return out.Bytes(), "quoted-printable"
}

func longestLine(body string) (longest int) {
	for line := range strings.Lines(body) {
		longest = max(longest, len(line)-1)
	}
	return longest
}
