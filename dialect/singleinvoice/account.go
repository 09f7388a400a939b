package singleinvoice

import (
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// account is what a call answers when it made a key. The order of the members is
// the API's.
type account struct {
	ID        int64    `json:"Id"`
	Email     *string  `json:"Email"`
	APIKeys   []string `json:"ApiKeys"`
	FirstName *string  `json:"FirstName"`
	LastName  *string  `json:"LastName"`
	Company   *string  `json:"Company"`
	Phone     *string  `json:"Phone"`
	Address   *string  `json:"Address"`
	SIREN     *string  `json:"SIREN"`
	// Roles is one text, empty if there are none.
	Roles  string `json:"Roles"`
	Active bool   `json:"Active"`
}

func accountOf(a *keystore.Account, keys []string) account {
	return account{
		ID: a.Number, Email: orNull(a.Email), APIKeys: keys,
		FirstName: orNull(a.FirstName), LastName: orNull(a.LastName), Company: orNull(a.Company),
		Phone: orNull(a.Phone), Address: orNull(a.Address), SIREN: orNull(a.SIREN),
		Roles: strings.Join(a.Roles, ", "), Active: a.Active,
	}
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// shown is an older key: its text if the store keeps it and the caller could get
// one like it, else what is known of it. The hint of a token is its beginning; that
// of any other key is masked already.
func shown(kr *keystore.Keyring, caller keystore.Actor, k keystore.Holding) string {
	if kr.MayObtain(caller, k.Credential) == nil {
		if text, err := kr.Reveal(k.Key); err == nil {
			return text
		}
	}
	if k.Format == keystore.FormatToken {
		return k.Hint + "…"
	}
	return k.Hint
}
