package apikeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore <backup> [--store <path>] [--force]",
		Short: "Puts a backup in the place of the store, while Caddy is stopped",
		Long: `
Puts a backup in the place of the store. It works on the file itself, so Caddy must
be stopped, and it must be run by the user that runs Caddy.

The backup is checked first, and stays as it is. If the present store has what the
backup has not, nothing is done without --force, since that would be undone: above
all, keys that were revoked since would work again. They are listed in both cases.
The present store is kept beside the new one.`,
		Example: `  $ sudo -u caddy caddy api-keys restore /backup/keys-2026-11-22.db --store /var/lib/caddy/api_keys/keys.db`,
		Args:    cobra.ExactArgs(1),
		RunE:    restoreStore,
	}
	cmd.Flags().String("store", "", "Path of the store (default: api_keys/keys.db in Caddy's data directory)")
	cmd.Flags().Bool("force", false, "Restore also if the present store has what the backup has not")
	return cmd
}

func restoreStore(cmd *cobra.Command, args []string) error {
	path := cmd.Flag("store").Value.String()
	if path == "" {
		if cmd.Flag("store").Changed {
			return errors.New("--store is empty: give it a value, or leave it out")
		}
		path = defaultStorePath()
	}
	force := cmd.Flag("force").Value.String() == "true"
	restored, err := sqlstore.RestoreSQLite(cmd.Context(), path, args[0], force)
	if err != nil && !errors.Is(err, sqlstore.ErrNewer) {
		return err
	}
	if err := tellRestored(cmd, path, restored, err == nil); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("nothing was changed: %s has what the backup has not, which would be undone; --force restores all the same", path)
	}
	return nil
}

// tellRestored says what is undone, and where the old store is.
func tellRestored(cmd *cobra.Command, path string, r sqlstore.Restored, done bool) error {
	if wantsJSON(cmd) {
		raw, err := json.Marshal(restoredAnswerOf(path, r, done))
		if err != nil {
			return err
		}
		return printRaw(cmd, raw)
	}
	would := "would be"
	if done {
		would = "is"
	}
	if r.Unreadable != nil {
		cmd.PrintErrf("the present store can't be read, so that nobody can say what %s undone: %v\n", would, r.Unreadable)
	}
	if r.Seen > r.BackupSeen {
		cmd.PrintErrf("the present store was in use until %s, the backup until %s\n", timeText(r.Seen), timeText(r.BackupSeen))
	}
	cmd.PrintErrf("not in the backup: %d accounts, %d credentials, %d keys; changed since: %d\n", r.Accounts, r.Credentials, r.Keys, r.Changed)
	cmd.PrintErrf("keys that %s alive again: %d\n", would, r.RevivedCount)
	for _, k := range r.Revived {
		cmd.PrintErrf("  key %s, credential %s, account %s, %s\n", k.ID, k.CredentialID, k.AccountID, endOf(k))
	}
	if more := r.RevivedCount - len(r.Revived); more > 0 {
		cmd.PrintErrf("  and %d more\n", more)
	}
	if done {
		cmd.PrintErrf("%s is restored\n", path)
		if r.Aside != "" {
			cmd.PrintErrf("the store that was there is kept as %s\n", r.Aside)
		}
	}
	return nil
}

func endOf(k sqlstore.RevivedKey) string {
	if k.RevokedAt == 0 {
		return "expired, or its credential or account is not active"
	}
	return fmt.Sprintf("revoked %s %q", timeText(k.RevokedAt), k.RevokedReason)
}

func timeText(i keystore.Instant) string {
	if i == 0 {
		return "an unknown time"
	}
	return i.Time().Format(time.RFC3339)
}

// restoredAnswer is what --json prints of a restore.
type restoredAnswer struct {
	Store        string          `json:"store"`
	Restored     bool            `json:"restored"`
	Aside        string          `json:"aside"`
	Unreadable   string          `json:"unreadable"`
	Accounts     int             `json:"accounts"`
	Credentials  int             `json:"credentials"`
	Keys         int             `json:"keys"`
	Changed      int             `json:"changed"`
	RevivedCount int             `json:"revived_count"`
	Revived      []revivedAnswer `json:"revived"`
}

type revivedAnswer struct {
	KeyID         string `json:"key_id"`
	CredentialID  string `json:"credential_id"`
	AccountID     string `json:"account_id"`
	RevokedAt     string `json:"revoked_at"`
	RevokedReason string `json:"revoked_reason"`
}

func restoredAnswerOf(path string, r sqlstore.Restored, done bool) restoredAnswer {
	out := restoredAnswer{Store: path, Restored: done, Aside: r.Aside, Accounts: r.Accounts, Credentials: r.Credentials,
		Keys: r.Keys, Changed: r.Changed, RevivedCount: r.RevivedCount, Revived: []revivedAnswer{}}
	if r.Unreadable != nil {
		out.Unreadable = r.Unreadable.Error()
	}
	for _, k := range r.Revived {
		revoked := ""
		if k.RevokedAt != 0 {
			revoked = timeText(k.RevokedAt)
		}
		out.Revived = append(out.Revived, revivedAnswer{k.ID, k.CredentialID, k.AccountID, revoked, k.RevokedReason})
	}
	return out
}
