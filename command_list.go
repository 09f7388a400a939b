package apikeys

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// What the commands read of the API's answers. Null reads as empty.
type (
	accountAnswer struct {
		ID         string            `json:"id"`
		Number     int64             `json:"number"`
		Email      string            `json:"email"`
		Active     bool              `json:"active"`
		Roles      []string          `json:"roles"`
		FirstName  string            `json:"first_name"`
		LastName   string            `json:"last_name"`
		Company    string            `json:"company"`
		Phone      string            `json:"phone"`
		Address    string            `json:"address"`
		SIREN      string            `json:"siren"`
		Attributes map[string]string `json:"attributes"`
		CreatedAt  string            `json:"created_at"`
		UpdatedAt  string            `json:"updated_at"`
	}
	credentialAnswer struct {
		ID          string   `json:"id"`
		AccountID   string   `json:"account_id"`
		Package     string   `json:"package"`
		Roles       []string `json:"roles"`
		Active      bool     `json:"active"`
		Description string   `json:"description"`
	}
	keyAnswer struct {
		ID         string `json:"id"`
		Hint       string `json:"hint"`
		State      string `json:"state"`
		ExpiresAt  string `json:"expires_at"`
		LastUsedAt string `json:"last_used_at"`
	}
	newKeyAnswer struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	issuedAnswer struct {
		Credential credentialAnswer `json:"credential"`
		Key        newKeyAnswer     `json:"key"`
	}
	rotatedAnswer struct {
		Key      newKeyAnswer `json:"key"`
		Previous []keyAnswer  `json:"previous"`
	}
	verdictAnswer struct {
		Active       bool     `json:"active"`
		Code         string   `json:"code"`
		KeyID        string   `json:"key_id"`
		CredentialID string   `json:"credential_id"`
		AccountID    string   `json:"account_id"`
		Package      string   `json:"package"`
		Roles        []string `json:"roles"`
		ExpiresAt    string   `json:"expires_at"`
	}
)

func (k keyAnswer) stateAndEnd() string {
	if k.State == "retiring" && k.ExpiresAt != "" {
		return "retiring until " + shortTime(k.ExpiresAt)
	}
	return k.State
}

func (a accountAnswer) rows() [][]string {
	rows := [][]string{
		{"id", a.ID}, {"number", fmt.Sprint(a.Number)}, {"email", a.Email}, {"active", fmt.Sprint(a.Active)},
		{"roles", strings.Join(a.Roles, ", ")}, {"name", strings.TrimSpace(a.FirstName + " " + a.LastName)}, {"company", a.Company},
		{"phone", a.Phone}, {"address", a.Address}, {"siren", a.SIREN},
		{"created", shortTime(a.CreatedAt)}, {"updated", shortTime(a.UpdatedAt)},
	}
	names := make([]string, 0, len(a.Attributes))
	for name := range a.Attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, []string{"attribute " + name, a.Attributes[name]})
	}
	return rows
}

func (v verdictAnswer) rows() [][]string {
	rows := [][]string{{"active", fmt.Sprint(v.Active)}, {"code", v.Code}}
	if v.KeyID == "" {
		return rows
	}
	return append(rows, []string{"key", v.KeyID}, []string{"credential", v.CredentialID}, []string{"account", v.AccountID},
		[]string{"package", v.Package}, []string{"roles", strings.Join(v.Roles, ", ")}, []string{"expires", shortTime(v.ExpiresAt)})
}

// shortTime is a time of the API without its fraction of a second.
func shortTime(s string) string {
	if whole, _, ok := strings.Cut(s, "."); ok {
		return whole + "Z"
	}
	return s
}

// printRows writes an aligned table to standard output.
func printRows(cmd *cobra.Command, rows [][]string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// printAllRaw writes all pages of a list as one answer.
func printAllRaw(cmd *cobra.Command, c *adminClient, path string) error {
	items, err := readList[jsontext.Value](cmd.Context(), c, path)
	if err != nil {
		return err
	}
	return printAsList(cmd, items)
}

func printAsList[T any](cmd *cobra.Command, items []T) error {
	raw, err := json.Marshal(struct {
		Items []T     `json:"items"`
		Next  *string `json:"next"`
	}{Items: items})
	if err != nil {
		return err
	}
	return printRaw(cmd, raw)
}

func listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--account <id|email>]",
		Short: "Lists credentials and their keys",
		Long: `
Lists the accounts with their credentials and the state of each key, oldest
first. A key is pending, active, retiring (a rotation bounds it), expired or
revoked.

With --json, it prints one list, whose items have the members account,
credential and keys; an account without credentials is not among them.`,
		Example: `  $ caddy api-keys list
  $ caddy api-keys list --account ops@acme.example`,
		Args: cobra.NoArgs,
		RunE: withClient(listKeys),
	}
	cmd.Flags().String("account", "", "Only the account with this id or e-mail address")
	return cmd
}

// heldCredential is a credential with what is around it, raw and read.
type heldCredential struct {
	Account    jsontext.Value   `json:"account"`
	Credential jsontext.Value   `json:"credential"`
	Keys       []jsontext.Value `json:"keys"`
}

func listKeys(cmd *cobra.Command, c *adminClient, _ []string) error {
	accounts, err := accountsToList(cmd, c)
	if err != nil {
		return err
	}
	items := []heldCredential{}
	rows := [][]string{{"ACCOUNT", "EMAIL", "CREDENTIAL", "PACKAGE", "ROLES", "KEY", "STATE", "EXPIRES", "LAST USED"}}
	for _, raw := range accounts {
		of, more, err := listAccount(cmd, c, raw)
		if err != nil {
			return err
		}
		items, rows = append(items, of...), append(rows, more...)
	}
	if wantsJSON(cmd) {
		return printAsList(cmd, items)
	}
	return printRows(cmd, rows)
}

func accountsToList(cmd *cobra.Command, c *adminClient) ([]jsontext.Value, error) {
	name := cmd.Flag("account").Value.String()
	if name == "" {
		return readList[jsontext.Value](cmd.Context(), c, "/accounts")
	}
	path, err := accountPath(cmd, c, name)
	if err != nil {
		return nil, err
	}
	raw, err := c.call(cmd.Context(), http.MethodGet, path, nil)
	return []jsontext.Value{raw}, err
}

// listAccount returns the credentials of an account, and their rows.
func listAccount(cmd *cobra.Command, c *adminClient, raw jsontext.Value) (items []heldCredential, rows [][]string, err error) {
	a, err := readAnswer[accountAnswer](raw)
	if err != nil {
		return nil, nil, err
	}
	credentials, err := readList[jsontext.Value](cmd.Context(), c, "/accounts/"+a.ID+"/credentials")
	if err != nil {
		return nil, nil, err
	}
	if len(credentials) == 0 {
		rows = append(rows, []string{a.ID, a.Email, "", "", "", "", "", "", ""})
	}
	for _, credential := range credentials {
		cr, err := readAnswer[credentialAnswer](credential)
		if err != nil {
			return nil, nil, err
		}
		keys, err := readList[jsontext.Value](cmd.Context(), c, "/credentials/"+cr.ID+"/keys")
		if err != nil {
			return nil, nil, err
		}
		items = append(items, heldCredential{raw, credential, keys})
		for _, key := range keys {
			k, err := readAnswer[keyAnswer](key)
			if err != nil {
				return nil, nil, err
			}
			rows = append(rows, []string{a.ID, a.Email, cr.ID, cr.Package, strings.Join(cr.Roles, ","), k.ID,
				stateOf(a, cr, k), shortTime(k.ExpiresAt), shortTime(k.LastUsedAt)})
		}
	}
	return items, rows, nil
}

// stateOf is a key's state, and whether its credential or account is
// deactivated.
func stateOf(a accountAnswer, cr credentialAnswer, k keyAnswer) string {
	if !a.Active || !cr.Active {
		return k.State + " (inactive)"
	}
	return k.State
}

func readAnswer[T any](raw jsontext.Value) (out T, err error) {
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("an answer that this version does not know: %w", err)
	}
	return out, nil
}
