//go:build reliability && linux

package reliability

import (
	"context"
	"database/sql/driver"
	"os"

	"modernc.org/sqlite"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// variants are what a writer's store can be: the real one, and those that break a
// promise, for the controls.
var variants = map[string]func(keystore.Store) keystore.Store{
	"":         func(s keystore.Store) keystore.Store { return s },
	"early":    func(s keystore.Store) keystore.Store { return early{s} },
	"torn":     func(s keystore.Store) keystore.Store { return torn{s} },
	"unsynced": func(s keystore.Store) keystore.Store { return s }, // see the connection hook
}

// early answers an update before its commit.
type early struct{ keystore.Store }

func (s early) Update(ctx context.Context, change func(keystore.Tx) error) error {
	answer := make(chan error, 2)
	go func() {
		answer <- s.Store.Update(ctx, func(tx keystore.Tx) error {
			err := change(tx)
			answer <- err
			return err
		})
	}()
	return <-answer
}

// torn writes the changes of keys after the transaction that decided on them.
type torn struct{ keystore.Store }

func (s torn) Update(ctx context.Context, change func(keystore.Tx) error) error {
	var later []*keystore.Key
	err := s.Store.Update(ctx, func(tx keystore.Tx) error { return change(&tornTx{tx, &later}) })
	if err != nil {
		return err
	}
	for _, k := range later {
		if err := s.Store.Update(ctx, func(tx keystore.Tx) error { return tx.UpdateKey(k) }); err != nil {
			return err
		}
	}
	return nil
}

type tornTx struct {
	keystore.Tx
	later *[]*keystore.Key
}

func (tx *tornTx) UpdateKey(k *keystore.Key) error {
	copied := *k
	*tx.later = append(*tx.later, &copied)
	return nil
}

// The variant unsynced tells the engine not to sync.
func init() {
	if os.Getenv(writerVariant) != "unsynced" {
		return
	}
	sqlite.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
		_, err := conn.ExecContext(context.Background(), "PRAGMA synchronous = OFF", []driver.NamedValue{})
		return err
	})
}
