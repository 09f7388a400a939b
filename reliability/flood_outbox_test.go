//go:build reliability

package reliability

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// maxOutbox is how many mails may wait, as the keystore has it.
const maxOutbox = 10_000

// fillOutbox puts mails into a store that nobody has open, as they lie there while
// the mail server is down: for accounts of their own, due tomorrow.
func fillOutbox(t *testing.T, path string, mails int) {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	now := keystore.InstantOf(time.Now())
	err = store.Update(t.Context(), func(tx keystore.Tx) error {
		for i := range mails {
			m := keystore.Mail{ID: fmt.Sprint("m", i), AccountID: fmt.Sprint("a", i), RequestedAt: now, DueAt: now.Add(24 * time.Hour)}
			if err := tx.PutMail(&m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAFullOutboxIsToldAndHurtsNothingElse asks for a key by e-mail when no mail can
// wait any more. The control is an outbox with room for one.
func TestAFullOutboxIsToldAndHurtsNothingElse(t *testing.T) {
	const global = "mail {\n smtp 127.0.0.1:1\n tls off\n from keys@example.com\n }"
	const block = "dialect sarus /by-mail\n dialect rest /keys-api"
	g := livetest.Start(t, global, block)
	account := g.Account(keystore.Account{Email: "ada@example.com"})
	operator := g.Issue(keystore.Credential{AccountID: account.ID, Roles: []string{keystore.RoleOperator}})
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	fillOutbox(t, g.StorePath(), maxOutbox-1)
	if err := g.Reload(global, block); err != nil {
		t.Fatal(err)
	}
	byMail := func(address string) int {
		return g.Do(1, http.MethodGet, "/by-mail/RequestAPIKey?Email="+address, "").StatusCode
	}
	if got := byMail("somebody@example.com"); got != http.StatusOK {
		t.Errorf("with room for one, the answer is %d", got)
	}
	for _, address := range []string{"ada@example.com", "nobody@example.com", "ada@example.com"} {
		if got := byMail(address); got != http.StatusInternalServerError {
			t.Errorf("with a full outbox, %s is answered %d", address, got)
		}
	}
	for range 20 {
		if got := g.Do(1, http.MethodGet, "/", "", "X-API-Key", operator.Text); got.StatusCode != http.StatusOK {
			t.Errorf("a good key is answered %d", got.StatusCode)
		}
		if got := g.Do(1, http.MethodPost, "/keys-api/accounts", "{}", "X-API-Key", operator.Text); got.StatusCode != http.StatusCreated {
			t.Errorf("the management API answers %d: %s", got.StatusCode, got.Text)
		}
		if got := g.Do(1, http.MethodPost, "/keys-api/credentials/"+operator.Credential.ID+"/rotate", `{"overlap":"1h"}`,
			"X-API-Key", operator.Text); got.StatusCode != http.StatusOK && got.StatusCode != http.StatusConflict {
			t.Errorf("a rotation is answered %d: %s", got.StatusCode, got.Text)
		}
	}
}
