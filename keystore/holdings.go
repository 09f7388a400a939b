package keystore

import (
	"cmp"
	"slices"
)

// LiveKeys returns the keys that work now or will, of all credentials of an
// account, in the order of their making. It reads in a transaction of the
// caller's, so that what is decided on it holds for what is changed there.
func (kr *Keyring) LiveKeys(r Reader, accountID string) (live []KeyStatus, err error) {
	credentials, err := r.Credentials(accountID, Page{})
	if err != nil {
		return nil, err
	}
	now := kr.Now()
	for _, c := range credentials {
		keys, err := liveKeys(r, c.ID, now)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if status := statusOf(k, c, keys, now); status.State.Live() {
				live = append(live, status)
			}
		}
	}
	slices.SortFunc(live, func(a, b KeyStatus) int { return cmp.Compare(a.Seq, b.Seq) })
	return live, nil
}
