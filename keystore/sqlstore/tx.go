package sqlstore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// transaction is the Tx that a function is given for the time of its run.
type transaction struct {
	reader
	owners owners
}

// notFound is the answer where no row is.
func notFound(op string) error { return fmt.Errorf("%s: %w", op, keystore.ErrNotFound) }

// insert runs a statement that returns the number that the database assigned.
func (t *transaction) insert(op string, assigned *int64, id statement, values []any) error {
	number, err := one(&t.reader, op, scanNumber, id, values...)
	if err != nil {
		return err
	}
	*assigned = number
	return nil
}

// replace runs a statement that must find its row, and those that follow from it,
// for the id that is its first value.
func (t *transaction) replace(op string, values []any, id statement, follow ...statement) error {
	var found int64
	err := t.with(op, func(s *session) error {
		result, err := s.exec(id, values...)
		if err != nil {
			return err
		}
		if found, err = result.RowsAffected(); err != nil || found == 0 {
			return err
		}
		for _, next := range follow {
			if _, err := s.exec(next, values[0]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && found == 0 {
		return notFound(op)
	}
	return err
}

func (t *transaction) CreateAccount(a *keystore.Account) error {
	const op = "create account"
	values, err := accountValues(a, int64(a.CreatedAt))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return t.insert(op, &a.Number, insertAccount, values)
}

func (t *transaction) UpdateAccount(a *keystore.Account) error {
	const op = "update account"
	values, err := accountValues(a)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return t.replace(op, values, updateAccount, updateGrantsOfAccount)
}

func (t *transaction) CreateCredential(c *keystore.Credential) error {
	const op = "create credential"
	values, err := credentialValues(c, int64(c.CreatedAt))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return t.insert(op, &c.Seq, insertCredential, values)
}

func (t *transaction) UpdateCredential(c *keystore.Credential) error {
	const op = "update credential"
	values, err := credentialValues(c)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return t.replace(op, values, updateCredential, updateGrantsOfCredential)
}

func (t *transaction) CreateKey(k *keystore.Key) error {
	const op = "create key"
	if err := t.insert(op, &k.Seq, insertKey, insertKeyValues(k)); err != nil {
		return err
	}
	return t.put(op, insertGrant, newGrant(k)...)
}

func (t *transaction) CreateCredentialWithKey(c *keystore.Credential, k *keystore.Key) error {
	const op = "create credential with key"
	rows, err := rowsOf(c, k)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return t.with(op, func(s *session) (err error) {
		c.Seq, k.Seq, err = s.engine.createWithKey(s, rows)
		return err
	})
}

func (t *transaction) UpdateKey(k *keystore.Key) error {
	return t.replace("update key", updateKeyValues(k), updateKey, updateGrant)
}

func (t *transaction) RecordUses(uses []keystore.Use) error {
	return t.with("record uses", func(s *session) error {
		for part := range slices.Chunk(oncePerKey(uses), usesAtOnce) {
			if err := s.recordUses(part); err != nil {
				return err
			}
		}
		return nil
	})
}

// oncePerKey has all uses of a key be one, and sorts by key, so that neighbours in the
// table are written together.
func oncePerKey(uses []keystore.Use) []keystore.Use {
	sorted := slices.Clone(uses)
	slices.SortFunc(sorted, func(a, b keystore.Use) int { return strings.Compare(a.KeyID, b.KeyID) })
	once := sorted[:0]
	for _, u := range sorted {
		if last := len(once) - 1; last >= 0 && once[last].KeyID == u.KeyID {
			once[last].First, once[last].Last = min(once[last].First, u.First), max(once[last].Last, u.Last)
		} else {
			once = append(once, u)
		}
	}
	return once
}

// recordUses writes what is new in at most usesAtOnce uses. Only a first use is in the
// grant.
func (s *session) recordUses(uses []keystore.Use) error {
	values, ids, earliest := make([]any, 0, 3*usesAtOnce), make([]any, 0, usesAtOnce), uses[0].First
	for _, u := range uses {
		values, ids = append(values, u.KeyID, int64(u.First), int64(u.Last)), append(ids, u.KeyID)
		earliest = min(earliest, u.First)
	}
	for len(ids) < usesAtOnce {
		values, ids = append(values, "", int64(0), int64(0)), append(ids, "") // no key's
	}
	var latest int64
	err := s.await(func() error {
		rows, err := s.statement(recordUses).QueryContext(s.ctx, values...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for first := int64(0); rows.Next(); latest = max(latest, first) {
			if err := rows.Scan(&first); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil || latest < int64(earliest) {
		return err
	}
	_, err = s.exec(updateGrantsUsed, ids...)
	return err
}

func (t *transaction) SetSetting(name string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return t.with("set setting", func(s *session) error {
		delete(s.settings, name)
		_, err := s.exec(putSetting, name, value)
		return err
	})
}

// put runs a statement that writes its row in any case.
func (t *transaction) put(op string, id statement, values ...any) error {
	return t.with(op, func(s *session) error {
		_, err := s.exec(id, values...)
		return err
	})
}

func (t *transaction) PutMail(m *keystore.Mail) error {
	return t.put("put mail", putMail, m.ID, m.AccountID, m.Package, int64(m.RequestedAt), int64(m.DueAt), m.Attempts)
}

func (t *transaction) UpdateMail(m *keystore.Mail) error {
	return t.replace("update mail", []any{m.ID, int64(m.DueAt), m.Attempts}, updateMail)
}

func (t *transaction) DeleteMail(id string) error {
	return t.replace("delete mail", []any{id}, deleteMail)
}

func (t *transaction) SetThrottle(digest keystore.Digest, until keystore.Instant) error {
	return t.put("set throttle", putThrottle, digest[:], int64(until))
}

func (t *transaction) PutReply(p *keystore.Reply) error {
	return t.put("put reply", putReply, p.Digest[:], p.Request[:], p.Sealed, int64(p.ExpiresAt))
}

func (t *transaction) Prune(now keystore.Instant) error {
	const op = "prune"
	if err := t.put(op, pruneThrottles, int64(now)); err != nil {
		return err
	}
	if err := t.put(op, pruneReplies, int64(now)); err != nil {
		return err
	}
	return t.with(op, func(s *session) error { return s.engine.prune(s) })
}

func (t *transaction) Announce(changed ...keystore.Digest) (a keystore.Announcement, err error) {
	err = t.with("announce", func(s *session) (err error) {
		a, err = s.engine.announce(s, changed)
		return err
	})
	return a, err
}
