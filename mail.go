package apikeys

// MailConfig says how keys are sent by e-mail.
type MailConfig struct {
	// The address of the SMTP server, host:port.
	SMTP string `json:"smtp"`
}

// mails reports whether keys can be sent by e-mail.
func (app *App) mails() bool { return app.Mail != nil }
