package keystore

import "context"

// This file hands a whole store over, record by record, so that another one can be
// made of it: see import.go.

// exportPage is how many records are in memory at a time.
const exportPage = 500

// Exporter is handed a store, in the order of its methods: every record after those
// that it refers to, and credentials and keys in the order of their making. Its first
// error ends the export.
type Exporter interface {
	// Begin is told the fingerprint of the pepper that the store is held to, nil if
	// there is none.
	Begin(pepper []byte) error
	Account(*Account) error
	Credential(*Credential) error
	Key(*Key) error
	// End is told that this was everything, but for the mails that wait, of which
	// there are so many: an import that is repeated would send them again. Throttles,
	// replies and the time that was seen stay behind, too.
	End(mails int) error
}

// Export hands over what the store holds at one moment, tombstones included. For as
// long as that takes, the store keeps the moment: a slow exporter is a burden.
func (kr *Keyring) Export(ctx context.Context, to Exporter) error {
	// What waits to be written is not for this caller alone.
	kr.vault.flushUses()
	return kr.View(ctx, func(r Reader) error {
		pepper, err := r.Setting(pepperSetting)
		if err != nil {
			return err
		}
		mails, err := r.CountMails()
		if err != nil {
			return err
		}
		if err := to.Begin(pepper); err != nil {
			return err
		}
		if err := each(r.EveryAccount, func(a *Account) int64 { return a.Number }, to.Account); err != nil {
			return err
		}
		if err := each(r.EveryCredential, func(c *Credential) int64 { return c.Seq }, to.Credential); err != nil {
			return err
		}
		if err := each(r.EveryKey, func(k *Key) int64 { return k.Seq }, to.Key); err != nil {
			return err
		}
		return to.End(mails)
	})
}

// each hands over all records of a kind, page by page.
func each[T any](read func(after int64, limit int) ([]*T, error), position func(*T) int64, hand func(*T) error) error {
	for after := int64(0); ; {
		page, err := read(after, exportPage)
		if err != nil {
			return err
		}
		for _, record := range page {
			if err := hand(record); err != nil {
				return err
			}
		}
		if len(page) < exportPage {
			return nil
		}
		after = position(page[len(page)-1])
	}
}
