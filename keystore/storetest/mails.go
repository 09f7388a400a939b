package storetest

import (
	"bytes"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var mailRules = []rule{
	{"a mail is read as it was put", func(s *suite) {
		want := fullMail("m", "a", 30)
		s.putMail(want)
		s.same(s.nextMail(), want)
	}},
	{"the next mail is the one that is due first", func(s *suite) {
		s.putMail(fullMail("m1", "a", 30))
		s.putMail(fullMail("m2", "b", 10))
		s.putMail(fullMail("m3", "c", 20))
		if got := s.nextMail().ID; got != "m2" {
			s.Errorf("next mail is %q, want m2", got)
		}
	}},
	{"an empty outbox has no next mail", func(s *suite) {
		_, err := s.tryNextMail()
		s.wants(err, keystore.ErrNotFound)
		s.countsMails(0)
	}},
	{"the mails that are due come in their order, page by page", func(s *suite) {
		for id, due := range map[string]keystore.Instant{"m1": 30, "m2": 10, "m3": 20, "m4": 20, "m5": 31} {
			s.putMail(fullMail(id, id, due))
		}
		s.due(30, "", 2, "m1", "m2")
		s.due(30, "m2", 2, "m3", "m4")
		s.due(30, "m4", 2)
		s.due(20, "", 9, "m2", "m3", "m4")
		s.due(9, "", 9)
		s.must(func(tx keystore.Tx) error { return tx.DeleteMail("m3") })
		s.due(31, "m3", 9, "m4", "m5")
	}},
	{"a mail takes the place of one of the same account and package", func(s *suite) {
		s.putMail(fullMail("m1", "a", 10))
		want := fullMail("m2", "a", 20)
		want.Attempts = 0
		s.putMail(want)
		s.countsMails(1)
		s.same(s.nextMail(), want)
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.DeleteMail("m1") })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateMail(&keystore.Mail{ID: "m1"}) })
		s.same(s.nextMail(), want)
	}},
	{"mails of one account and different packages are different", func(s *suite) {
		s.putMail(fullMail("m1", "a", 10))
		other := fullMail("m2", "a", 20)
		other.Package = "Other"
		s.putMail(other)
		s.countsMails(2)
	}},
	{"an update changes when a mail is due and its attempts, and nothing else", func(s *suite) {
		want := fullMail("m", "a", 30)
		s.putMail(want)
		s.must(func(tx keystore.Tx) error {
			return tx.UpdateMail(&keystore.Mail{ID: "m", AccountID: "x", Package: "x", RequestedAt: 1, DueAt: 99, Attempts: 7})
		})
		want.DueAt, want.Attempts = 99, 7
		s.same(s.nextMail(), want)
	}},
	{"a mail that was deleted is gone", func(s *suite) {
		s.putMail(fullMail("m", "a", 30))
		s.must(func(tx keystore.Tx) error { return tx.DeleteMail("m") })
		s.countsMails(0)
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.DeleteMail("m") })
	}},

	{"a digest that was not throttled is free", func(s *suite) { s.throttledUntil("a", 0) }},
	{"a digest is throttled until the latest time that was set", func(s *suite) {
		for _, until := range []keystore.Instant{50, 100, 70} {
			s.must(func(tx keystore.Tx) error { return tx.SetThrottle(digestOf("a"), until) })
			s.throttledUntil("a", until)
		}
		s.throttledUntil("b", 0)
	}},

	{"a reply that was not put is not found", func(s *suite) {
		_, err := s.tryReply("a")
		s.wants(err, keystore.ErrNotFound)
	}},
	{"a reply is read as it was put, byte by byte", func(s *suite) {
		want := fullReply("a", 100)
		s.putReply(want)
		s.same(s.reply("a"), want)
	}},
	{"a reply takes the place of one of the same digest", func(s *suite) {
		s.putReply(fullReply("a", 100))
		want := &keystore.Reply{Digest: digestOf("a"), Request: digestOf("other"), Sealed: []byte("x"), ExpiresAt: 200}
		s.putReply(want)
		s.same(s.reply("a"), want)
	}},

	{"pruning deletes throttles and replies that have ended, and no other", func(s *suite) {
		s.must(func(tx keystore.Tx) error {
			for name, end := range map[string]keystore.Instant{"before": 99, "now": 100, "after": 101} {
				if err := tx.SetThrottle(digestOf(name), end); err != nil {
					return err
				}
				if err := tx.PutReply(fullReply(name, end)); err != nil {
					return err
				}
			}
			return nil
		})
		s.putMail(fullMail("m", "a", 1))
		s.must(func(tx keystore.Tx) error { return tx.Prune(100) })
		for name, until := range map[string]keystore.Instant{"before": 0, "now": 0, "after": 101} {
			s.throttledUntil(name, until)
			if _, err := s.tryReply(name); (err == nil) != (until != 0) {
				s.Errorf("reply %q: %v", name, err)
			}
		}
		s.countsMails(1)
	}},
	{"an update that fails leaves mails, throttles and replies as they were", func(s *suite) {
		s.putMail(fullMail("m", "a", 1))
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error {
			for _, err := range []error{
				tx.DeleteMail("m"), tx.SetThrottle(digestOf("a"), 5), tx.PutReply(fullReply("a", 100)),
			} {
				if err != nil {
					return err
				}
			}
			return keystore.ErrConflict
		})
		s.countsMails(1)
		s.throttledUntil("a", 0)
		_, err := s.tryReply("a")
		s.wants(err, keystore.ErrNotFound)
	}},
}

func fullMail(id, account string, due keystore.Instant) *keystore.Mail {
	return &keystore.Mail{
		ID: id, AccountID: account, Package: "Coverage", RequestedAt: 1_700_000_000_001, DueAt: due, Attempts: 3,
	}
}

func fullReply(name string, expires keystore.Instant) *keystore.Reply {
	return &keystore.Reply{
		Digest: digestOf(name), Request: digestOf("request"),
		Sealed: bytes.Repeat([]byte{0, 0xff, '\''}, 1000), ExpiresAt: expires,
	}
}

func (s *suite) putMail(m *keystore.Mail) {
	s.Helper()
	s.must(func(tx keystore.Tx) error { return tx.PutMail(m) })
}

func (s *suite) tryNextMail() (m *keystore.Mail, err error) {
	err = s.View(s.ctx, func(r keystore.Reader) (err error) { m, err = r.NextMail(); return err })
	return m, err
}

func (s *suite) nextMail() *keystore.Mail {
	s.Helper()
	m, err := s.tryNextMail()
	if err != nil {
		s.Fatalf("NextMail: %v", err)
	}
	return m
}

// due wants these mails, each as it was put.
func (s *suite) due(at keystore.Instant, after string, limit int, ids ...string) {
	s.Helper()
	s.view(func(r keystore.Reader) error {
		mails, err := r.DueMails(at, after, limit)
		if err != nil || len(mails) != len(ids) {
			s.Errorf("DueMails: %d mails, %v; want %v", len(mails), err, ids)
			return nil
		}
		for i, m := range mails {
			s.same(m, fullMail(ids[i], ids[i], m.DueAt))
		}
		return nil
	})
}

func (s *suite) countsMails(want int) {
	s.Helper()
	s.view(func(r keystore.Reader) error {
		if got, err := r.CountMails(); err != nil || got != want {
			s.Errorf("CountMails: %d, %v; want %d", got, err, want)
		}
		return nil
	})
}

func (s *suite) throttledUntil(name string, want keystore.Instant) {
	s.Helper()
	s.view(func(r keystore.Reader) error {
		if got, err := r.Throttle(digestOf(name)); err != nil || got != want {
			s.Errorf("Throttle(%q): %d, %v; want %d", name, got, err, want)
		}
		return nil
	})
}

func (s *suite) putReply(p *keystore.Reply) {
	s.Helper()
	s.must(func(tx keystore.Tx) error { return tx.PutReply(p) })
}

func (s *suite) tryReply(name string) (p *keystore.Reply, err error) {
	err = s.View(s.ctx, func(r keystore.Reader) (err error) { p, err = r.Reply(digestOf(name)); return err })
	return p, err
}

func (s *suite) reply(name string) *keystore.Reply {
	s.Helper()
	p, err := s.tryReply(name)
	if err != nil {
		s.Fatalf("Reply: %v", err)
	}
	return p
}
