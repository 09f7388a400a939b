package keystore

import (
	"cmp"
	"slices"
)

// Holding is a key of an account, and its credential.
type Holding struct {
	KeyStatus
	Credential *Credential
}

// LiveKeys returns the keys that work now or will, of all credentials of an
// account, in the order of their making. It reads in a transaction of the
// caller's, so that what is decided on it holds for what is changed there.
func (kr *Keyring) LiveKeys(r Reader, accountID string) (live []Holding, err error) {
	credentials, err := r.Credentials(accountID, Page{})
	if err != nil {
		return nil, err
	}
	now := kr.Now()
	unended, err := r.UnendedKeysOfAccount(accountID, now)
	if err != nil {
		return nil, err
	}
	// Both lists have the credentials in one order.
	for _, c := range credentials {
		n := 0
		for n < len(unended) && unended[n].CredentialID == c.ID {
			n++
		}
		live = appendLive(live, c, unended[:n], now)
		unended = unended[n:]
	}
	slices.SortFunc(live, func(a, b Holding) int { return cmp.Compare(a.Seq, b.Seq) })
	return live, nil
}

// appendLive appends those of a credential's unended keys that are live.
func appendLive(live []Holding, c *Credential, unended []*Key, now Instant) []Holding {
	for _, status := range statuses(unended, c, unended, now) {
		if status.State.Live() {
			live = append(live, Holding{status, c})
		}
	}
	return live
}
