package apikeys

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/internal/options"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/mail"
)

// MailConfig says how keys are sent by e-mail. All members but tls take
// placeholders.
type MailConfig struct {
	// The address of the SMTP server, host:port. Required.
	SMTP string `json:"smtp,omitempty"`

	// How the connection is protected: starttls, implicit or off. The server's
	// certificate must be valid for its host. Default: starttls, which is
	// demanded.
	TLS string `json:"tls,omitempty"`

	// Who logs in at the server. Default: nobody.
	Username string `json:"username,omitempty"`

	// The password of username. Use a placeholder, such as {env.SMTP_PASSWORD} or
	// {file.<path>}. It is sent over TLS, or to a server on this machine.
	Password string `json:"password,omitempty"`

	// The sender: one address, or "Name <address>". Required.
	From string `json:"from,omitempty"`

	// The subject, one line. Default: Your new API key.
	Subject string `json:"subject,omitempty"`

	// The path of a file with the text, a Go text/template of at most 64 KiB. A
	// relative path counts from the directory in which Caddy was started. The text
	// must write {{.Key}} exactly once. Default: a text in English.
	Template string `json:"template,omitempty"`
}

// mails reports whether keys can be sent by e-mail.
func (app *App) mails() bool { return app.Mail != nil }

// provisionMail checks how mails are sent. It reads the template, and connects
// nowhere.
func (app *App) provisionMail() error {
	if !app.mails() {
		return nil
	}
	resolved, err := app.Mail.resolve()
	if err == nil {
		app.sender, err = mail.NewSender(resolved)
	}
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return nil
}

// resolve replaces placeholders and reads the template.
func (c *MailConfig) resolve() (mail.Options, error) {
	o := mail.Options{TLS: mail.TLS(c.TLS)}
	for _, option := range []struct {
		name, value string
		into        *string
	}{
		{"smtp", c.SMTP, &o.Server},
		{"username", c.Username, &o.Username},
		{"from", c.From, &o.From},
		{"subject", c.Subject, &o.Subject},
		{"template", c.Template, &o.TemplateFile},
	} {
		var err error
		if *option.into, err = resolve(option.name, option.value); err != nil {
			return o, err
		}
	}
	var err error
	if o.Password, err = resolveSecret("password", c.Password); err != nil || o.TemplateFile == "" {
		return o, err
	}
	o.Template, err = readTemplate(o.TemplateFile)
	return o, err
}

// readTemplate reads no more than what can be a template.
func readTemplate(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, mail.MaxTemplate+1))
	if err == nil && len(text) == 0 {
		err = errors.New("it is empty: leave template out for the text that is built in")
	}
	if err != nil {
		return "", fmt.Errorf("template %q: %w", path, err)
	}
	return string(text), nil
}

// startMail starts to send what waits in the outbox.
func (app *App) startMail(keyring *keystore.Keyring) {
	if !app.mails() {
		return
	}
	app.mailer = mail.NewWorker(app.sender, keyring, app.logger.Named("mail"), func(outcome string) {
		mailsTotal.WithLabelValues(outcome).Inc()
	})
	app.mailer.Start()
}

// stopMail lets the mail that is being sent finish, for some seconds.
func (app *App) stopMail() {
	if app.mailer != nil {
		app.mailer.Stop()
	}
}

func (app *App) parseMail(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("mail: unexpected %q; it takes a block only", d.Val())
	}
	app.Mail = new(MailConfig)
	return options.Parse(d, "mail", app.Mail.options())
}

func (c *MailConfig) options() []options.Option {
	return []options.Option{
		{Name: "smtp", Read: options.Word("<host:port>", &c.SMTP)},
		{Name: "tls", Read: c.parseTLS},
		{Name: "username", Read: options.Text("<name>", &c.Username)},
		{Name: "password", Read: options.Text("<secret>", &c.Password)},
		{Name: "from", Read: options.Text("<address>", &c.From)},
		{Name: "subject", Read: options.Text("<text>", &c.Subject)},
		{Name: "template", Read: options.Text("<file>", &c.Template)},
	}
}

func (c *MailConfig) parseTLS(d *caddyfile.Dispenser) error {
	if err := options.Word("starttls|implicit|off", &c.TLS)(d); err != nil {
		return err
	}
	return at(d, mail.TLS(c.TLS).Check())
}
