package mail

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The outcomes that a worker counts.
const (
	CountSent        = "sent"
	CountRefused     = "refused"
	CountUnknown     = "unknown"
	CountDropped     = "dropped"
	CountUnreachable = "unreachable"
)

const (
	// settle is how long the worker lets requests gather, and their answers go
	// out, before it begins.
	settle = 250 * time.Millisecond
	// poll is how often it looks without having been told, as nobody is of the mails
	// of a node that died.
	poll = 10 * time.Second
	// lease is how long a mail belongs to the worker that began it. An attempt is
	// over before.
	lease = 90 * time.Second
	// grace is how long a mail that is being sent may take once the worker is
	// stopped.
	grace = 5 * time.Second
	// endTimeout bounds writing down what became of a mail.
	endTimeout = 10 * time.Second
)

// backoff doubles from first to most.
type backoff struct{ first, most time.Duration }

var (
	// serverBackoff is between tries to reach the server.
	serverBackoff = backoff{2 * time.Second, 5 * time.Minute}
	// mailBackoff is between attempts at one mail.
	mailBackoff = backoff{time.Minute, time.Hour}
)

// after is how long to wait after that many failures.
func (b backoff) after(failures int) time.Duration {
	return min(b.first<<min(max(failures-1, 0), 20), b.most)
}

// jittered is up to a fifth more or less.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d))
}

// Worker sends the mails of an outbox, one after another. Several workers may
// share one: a mail belongs to the one that began it.
//
// A key is made only once the server is there and lets the worker in. So while it
// is down, nothing changes but that mails wait. Those that are not to be sent leave
// the outbox meanwhile, but not before settle is over: how soon a stranger is
// answered tells nothing of the address.
type Worker struct {
	sender  *Sender
	keyring *keystore.Keyring
	logger  *zap.Logger
	count   func(outcome string)

	settle, poll, lease, grace time.Duration
	server, mail               backoff
	begun                      func() // a key was made; for tests

	// life ends with what is being sent, open when nothing more is begun.
	life, open   context.Context
	cancel, quit context.CancelFunc
	done         chan struct{}

	failures int  // rounds in a row that came to nothing
	down     bool // the server can't be used
}

// NewWorker makes a worker. Count is told each outcome, one of the Count
// constants. It logs ids only, and never what a server says.
func NewWorker(sender *Sender, keyring *keystore.Keyring, logger *zap.Logger, count func(outcome string)) *Worker {
	life, cancel := context.WithCancel(context.Background())
	open, quit := context.WithCancel(life)
	return &Worker{
		sender: sender, keyring: keyring, logger: logger, count: count,
		settle: settle, poll: poll, lease: lease, grace: grace,
		server: serverBackoff, mail: mailBackoff, begun: func() {},
		life: life, open: open, cancel: cancel, quit: quit, done: make(chan struct{}),
	}
}

// Start starts the worker, once. It returns at once and reaches for no server
// before there is a mail to send.
func (w *Worker) Start() { go w.run() }

// Stop ends a worker that was started: it begins no other mail, and what it is
// sending has a few seconds. It returns when the worker has ended.
func (w *Worker) Stop() {
	w.quit()
	overdue := time.AfterFunc(w.grace, w.cancel)
	<-w.done
	overdue.Stop()
	w.cancel()
}

func (w *Worker) run() {
	defer close(w.done)
	// What this worker was told, and did not do, the next one is to be told.
	defer w.keyring.WakeMailer()
	for w.awaken() {
		w.note(w.round())
	}
}

// awaken waits until there may be something to do. It reports false if the worker
// is to end.
func (w *Worker) awaken() bool {
	if w.failures > 0 {
		return w.rest(jittered(w.server.after(w.failures)))
	}
	return w.sleep(w.untilDue(), w.keyring.MailQueued()) && w.sleep(w.settle, nil)
}

// rest waits after a failure. If that was of the server, it keeps the outbox swept
// meanwhile.
func (w *Worker) rest(d time.Duration) bool {
	if !w.down {
		return w.sleep(d, nil)
	}
	end := time.Now().Add(d)
	for w.sleep(min(time.Until(end), w.poll), w.keyring.MailQueued()) && w.sleep(w.settle, nil) {
		// What is wrong with the outbox is told by the round.
		if time.Until(end) <= 0 || w.sweep() != nil {
			return true
		}
	}
	return false
}

// sleep waits for a while, or until it is told. It reports false if the worker is
// to end.
func (w *Worker) sleep(d time.Duration, told <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-told:
	case <-w.open.Done():
	}
	return !w.stopping()
}

func (w *Worker) stopping() bool { return w.open.Err() != nil }

// untilDue is how long it takes until the next mail is due, as far as that is
// known.
func (w *Worker) untilDue() time.Duration {
	due, err := w.keyring.NextMailDue(w.life)
	if err != nil {
		return w.poll
	}
	left := time.Duration(due-w.keyring.Now()) * time.Millisecond
	return min(max(left, 0), w.poll)
}

// serverError is that the server can't be used.
type serverError struct{ error }

// sweep takes out of the outbox what is not to be sent.
func (w *Worker) sweep() error {
	dropped, err := w.keyring.SweepMails(w.life)
	for _, m := range dropped {
		w.dropped(&m.Mail, m.Why)
	}
	return err
}

// round sends all mails that are due, over one connection where the server lets
// it.
func (w *Worker) round() error {
	var c *session
	defer func() { c.close() }()
	if err := w.sweep(); err != nil {
		return err
	}
	for !w.stopping() {
		due, err := w.isDue()
		if !due || err != nil {
			return err
		}
		if c, err = w.connection(c); err != nil {
			return err
		}
		if err := w.sendNext(c); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) isDue() (bool, error) {
	due, err := w.keyring.NextMailDue(w.life)
	if errors.Is(err, keystore.ErrNotFound) {
		return false, nil
	}
	return due <= w.keyring.Now(), err
}

// connection returns the session c if it can take another mail, else a new one.
func (w *Worker) connection(c *session) (*session, error) {
	if c != nil && c.ready(w.sender.connectTimeout) {
		return c, nil
	}
	c.close()
	c, err := w.sender.connect(w.open, w.life)
	if err != nil {
		return nil, serverError{err}
	}
	if w.down {
		w.down = false
		w.logger.Info("the mail server can be used again", zap.String("server", w.sender.address()), zap.Int("failures", w.failures))
	}
	return c, nil
}

// sendNext begins the mail that is due first, if it still is, and sends it.
func (w *Worker) sendNext(c *session) error {
	a, err := w.keyring.BeginMail(w.life, w.lease)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil
	case err != nil:
		return err
	case a.Dropped != nil:
		w.dropped(&a.Mail, a.Dropped)
		return nil
	}
	w.begun()
	outcome, cause := w.attempt(a, c)
	return w.end(a, outcome, cause)
}

func (w *Worker) attempt(a *keystore.MailAttempt, c *session) (keystore.MailOutcome, error) {
	m, err := w.sender.compose(a, w.keyring.Now().Time())
	if err != nil {
		return keystore.MailRefused, err
	}
	return c.deliver(m, w.sender.deliverTimeout)
}

var counted = map[keystore.MailOutcome]string{
	keystore.MailSent: CountSent, keystore.MailRefused: CountRefused, keystore.MailUnknown: CountUnknown,
}

// end writes down what became of a mail, also if the worker is to end.
func (w *Worker) end(a *keystore.MailAttempt, outcome keystore.MailOutcome, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.life), endTimeout)
	defer cancel()
	w.count(counted[outcome])
	retryAt := w.keyring.Now().Add(w.mail.after(a.Attempts))
	dropped, err := w.keyring.EndMail(ctx, a, outcome, retryAt)
	fields := []zap.Field{
		zap.String("mail_id", a.ID), zap.Int("attempt", a.Attempts),
		zap.String("account_id", a.AccountID), zap.String("key_id", a.Key.ID),
	}
	var unwritten *templateError
	switch {
	case outcome == keystore.MailSent:
		w.logger.Info("mail sent", fields...)
	case errors.As(cause, &unwritten):
		w.logger.Error("mail could not be written; its key is revoked", append(fields, zap.Error(cause))...)
	case outcome == keystore.MailRefused:
		w.logger.Warn("mail refused; its key is revoked", append(fields, zap.Error(cause))...)
	default:
		w.logger.Warn("mail sent, or not: the server did not say; its key stays valid", append(fields, zap.Error(cause))...)
	}
	if dropped {
		w.dropped(&a.Mail, keystore.ErrMailExpired)
	}
	return err
}

func (w *Worker) dropped(m *keystore.Mail, why error) {
	w.count(CountDropped)
	w.logger.Error("mail dropped: "+why.Error(),
		zap.String("mail_id", m.ID), zap.String("account_id", m.AccountID), zap.Int("attempts", m.Attempts))
}

// note takes in how a round ended, and makes the next one wait if it failed.
func (w *Worker) note(err error) {
	if err == nil {
		w.failures = 0
		return
	}
	w.failures++
	fields := []zap.Field{zap.Error(err), zap.Duration("next_try", w.server.after(w.failures))}
	var server serverError
	if errors.As(err, &server) {
		fields = append(fields, zap.String("server", w.sender.address()))
	}
	switch {
	case server.error == nil:
		w.logger.Error("the outbox can't be worked on", fields...)
	case w.stopping():
		return
	case w.down:
		w.logger.Warn("the mail server still can't be used", fields...)
	default:
		w.logger.Error("the mail server can't be used; mails wait", fields...)
	}
	if server.error != nil {
		w.count(CountUnreachable)
		w.down = true
	}
}
