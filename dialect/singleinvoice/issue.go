package singleinvoice

import (
	"fmt"
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// issue answers POST /account/key. Who calls is settled before the body is read.
func (d *Dialect) issue(w http.ResponseWriter, r *http.Request) {
	grant, verdict := d.gateway.Authenticate(r, d.finder, d.needs)
	if verdict != keystore.OK {
		refuse(w, dialect.RefusalOf(verdict, grant, d.finder), d.finder)
		return
	}
	body, err := d.create(w, r, grant)
	if err != nil {
		d.fail(w, r, grant, err)
		return
	}
	write(w, http.StatusOK, body)
}

// create makes the key, and returns the account that lists it.
func (d *Dialect) create(w http.ResponseWriter, r *http.Request, grant *keystore.Grant) (out account, err error) {
	body, err := dialect.ReadBody(w, r)
	if err != nil {
		return account{}, err
	}
	if grant, err = d.gateway.Recheck(r, d.finder, grant, d.needs); err != nil {
		return account{}, err
	}
	packageName, err := packageIn(body)
	if err != nil {
		return account{}, err
	}
	kr, err := d.gateway.Keyring(r.Context())
	if err != nil {
		return account{}, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	wanted := keystore.Credential{AccountID: grant.AccountID, Package: packageName}
	caller := keystore.Holder(grant)
	_, err = kr.Issue(r.Context(), caller, wanted, func(tx keystore.Tx, made *keystore.Issued) (err error) {
		out, err = d.listed(kr, tx, caller, made)
		return err
	})
	return out, err
}

// listed is the account as the transaction that made the key sees it. With one key
// too many the error undoes the transaction, so that calls at the same time can't
// exceed the limit together.
func (d *Dialect) listed(kr *keystore.Keyring, tx keystore.Tx, caller keystore.Actor, made *keystore.Issued) (account, error) {
	caller, err := kr.Current(tx, caller)
	if err != nil {
		return account{}, err
	}
	owner, err := tx.Account(made.Credential.AccountID)
	if err != nil {
		return account{}, err
	}
	live, err := kr.LiveKeys(tx, owner.ID)
	if err != nil {
		return account{}, err
	}
	counted := 0
	texts := make([]string, len(live))
	for i, k := range live {
		if k.Counted() {
			counted++
		}
		texts[i] = shown(kr, caller, k)
		if k.ID == made.Key.ID {
			texts[i] = made.Text
		}
	}
	if counted > d.MaxKeys {
		return account{}, modelState{member: {fmt.Sprintf(tooMany, d.MaxKeys)}}
	}
	return accountOf(owner, texts), nil
}
