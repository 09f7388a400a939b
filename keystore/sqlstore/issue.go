package sqlstore

import (
	"fmt"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file creates a credential together with its first key, which is the change
// that is made most, with the fewest and cheapest statements that an engine has for
// it: the program knows all values but those of the account.

// newRows are the values of new rows, in the order of the insertions.
type newRows struct {
	account         string
	credential, key []any
	// grant are all values of the grant but those of accountOfGrant.
	grant []any
}

func rowsOf(c *keystore.Credential, k *keystore.Key) (newRows, error) {
	credential, err := credentialValues(c, int64(c.CreatedAt))
	if err != nil {
		return newRows{}, err
	}
	pkg, roles, ips := credential[2], credential[3], credential[6]
	grant := append(newGrant(k), pkg, roles, ips, c.Active, int64(c.ExpiresAt), c.AccountID)
	return newRows{c.AccountID, credential, insertKeyValues(k), grant}, nil
}

// createWithKey implements engine. What is asked of a file is there at once, so it
// takes a statement for each row: as plain as they are, they cost a fraction of
// statements that select or return something.
func (e *sqlite) createWithKey(s *session, rows newRows) (credential, key int64, err error) {
	var number int64
	var email string
	var active bool
	if err := s.statement(accountOfGrant).QueryRowContext(s.ctx, rows.account).Scan(&number, &email, &active); err != nil {
		return 0, 0, err
	}
	if credential, err = s.add(addCredential, rows.credential); err != nil {
		return 0, 0, err
	}
	if key, err = s.add(addKey, rows.key); err != nil {
		return 0, 0, err
	}
	_, err = s.exec(addGrant, append(rows.grant, number, email, active)...)
	return credential, key, err
}

// add inserts a row and returns the number that it was given.
func (s *session) add(id statement, values []any) (number int64, err error) {
	result, err := s.exec(id, values...)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

// createWithKey implements engine. What is asked of a server takes a round trip, so
// it is one statement.
func (e *postgres) createWithKey(s *session, rows newRows) (credential, key int64, err error) {
	values := make([]any, 0, len(rows.credential)+len(rows.key)+len(rows.grant))
	values = append(append(append(values, rows.credential...), rows.key...), rows.grant...)
	err = s.await(func() error {
		return s.tx.QueryRowContext(s.ctx, createWithKey, values...).Scan(&credential, &key)
	})
	return credential, key, err
}

// createWithKey has the values of a credential, a key and a grant.
var createWithKey = `WITH a AS (SELECT number, email, active FROM accounts WHERE id = $2 AND deleted_at = 0),
	c AS (` + intoCredentials + ` SELECT ` + placeholders(1, 12) + ` FROM a RETURNING seq),
	k AS (` + intoKeys + ` SELECT ` + placeholders(13, 19) + ` FROM a RETURNING seq),
	g AS (INSERT INTO grants (digest, ` + grantColumns + `) SELECT ` + placeholders(32, 16) + `, number, email, active FROM a)
	SELECT c.seq, k.seq FROM c, k`

// placeholders are n placeholders from $first on.
func placeholders(first, n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("$%d", first+i)
	}
	return strings.Join(list, ", ")
}
