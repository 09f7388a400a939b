package apikeys

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// flagMember is a flag that sets a member of a body, if it is given.
type flagMember struct {
	flag, member string
	read         func(cmd *cobra.Command, flag string) (any, error)
}

// collect writes the members whose flags are given.
func collect(cmd *cobra.Command, body map[string]any, flags []flagMember) error {
	for _, f := range flags {
		if flag := cmd.Flag(f.flag); flag == nil || !flag.Changed {
			continue
		}
		value, err := f.read(cmd, f.flag)
		if err != nil {
			return err
		}
		body[f.member] = value
	}
	return nil
}

func asText(cmd *cobra.Command, flag string) (any, error) { return cmd.Flags().GetString(flag) }

func asBool(cmd *cobra.Command, flag string) (any, error) { return cmd.Flags().GetBool(flag) }

// asList reads a repeatable flag. Once, and empty, it is an empty list.
func asList(cmd *cobra.Command, flag string) (any, error) {
	values, err := cmd.Flags().GetStringArray(flag)
	if len(values) == 1 && values[0] == "" {
		return []string{}, err
	}
	return values, err
}

// asPairs reads a repeatable flag of name=value. Once, and empty, it is an empty
// map.
func asPairs(cmd *cobra.Command, flag string) (any, error) {
	values, err := cmd.Flags().GetStringArray(flag)
	if err != nil {
		return nil, err
	}
	pairs := map[string]string{}
	if len(values) == 1 && values[0] == "" {
		return pairs, nil
	}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if _, repeated := pairs[name]; !ok || name == "" || repeated {
			return nil, fmt.Errorf("--%s %q: use name=value, each name once", flag, v)
		}
		pairs[name] = value
	}
	return pairs, nil
}

var accountFlags = []flagMember{
	{"id", "id", asText},
	{"email", "email", asText},
	{"first-name", "first_name", asText},
	{"last-name", "last_name", asText},
	{"company", "company", asText},
	{"phone", "phone", asText},
	{"postal-address", "address", asText},
	{"siren", "siren", asText},
	{"active", "active", asBool},
	{"role", "roles", asList},
	{"attribute", "attributes", asPairs},
}

func addAccountFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("email", "", "E-mail address, unique among accounts")
	f.String("first-name", "", "First name")
	f.String("last-name", "", "Last name")
	f.String("company", "", "Company")
	f.String("phone", "", "Phone number")
	f.String("postal-address", "", "Postal address")
	f.String("siren", "", "French company register number")
	f.StringArray("role", nil, "Role in the account's profile; what keys may do is in their credential's roles (repeatable)")
	f.StringArray("attribute", nil, "Your own data, as name=value (repeatable)")
}

func accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account <command>",
		Short: "Manages accounts",
		Long: `
Manages accounts, which own credentials. Where an account is named, its id or its
e-mail address will do.`,
	}
	create := &cobra.Command{
		Use:   "create [--id <id>] [--email <address>] ...",
		Short: "Makes an account",
		Long: `
Makes an account, and shows it. It is active. Without --id it gets an id of its
own.`,
		Example: `  $ caddy api-keys account create --id acme --email ops@acme.example --company "Acme Corp." --attribute plan=gold`,
		Args:    cobra.NoArgs,
		RunE:    withClient(createAccount),
	}
	addAccountFlags(create)
	create.Flags().String("id", "", "Id, unique for ever (default: a UUID)")

	update := &cobra.Command{
		Use:   "update <id|email> [--email <address>] ...",
		Short: "Changes an account",
		Long: `
Changes what the flags name, and shows the account. An empty value clears. --role
and --attribute replace all roles, or all attributes. --active=false makes all
keys of the account refused until it is active again.`,
		Example: `  $ caddy api-keys account update acme --active=false
  $ caddy api-keys account update acme --email ops@acme.example --phone ""`,
		Args: cobra.ExactArgs(1),
		RunE: withClient(updateAccount),
	}
	addAccountFlags(update)
	update.Flags().Bool("active", true, "Whether the account's keys work")

	needsCommand(cmd)
	cmd.AddCommand(create, update,
		&cobra.Command{
			Use: "list", Short: "Lists accounts", Args: cobra.NoArgs, RunE: withClient(listAccounts),
			Long:    "\nLists all accounts, oldest first.",
			Example: "  $ caddy api-keys account list",
		},
		&cobra.Command{
			Use: "show <id|email>", Short: "Shows an account", Args: cobra.ExactArgs(1), RunE: withClient(showAccount),
			Long:    "\nShows one account.",
			Example: "  $ caddy api-keys account show ops@acme.example",
		},
		&cobra.Command{
			Use: "delete <id|email>", Short: "Deletes an account and revokes all its keys", Args: cobra.ExactArgs(1), RunE: withClient(deleteAccount),
			Long: `
Deletes an account and its credentials, and revokes all its keys, for ever. To
stop the keys for a while, use "account update --active=false" instead.`,
			Example: "  $ caddy api-keys account delete acme",
		},
	)
	return cmd
}

// findAccount returns the id of an account that is named by its id or its
// address.
func findAccount(cmd *cobra.Command, c *adminClient, name string) (string, error) {
	if !strings.Contains(name, "@") {
		return name, nil
	}
	found, err := readList[accountAnswer](cmd.Context(), c, "/accounts", "email="+url.QueryEscape(name))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("no account has this e-mail address")
	}
	return found[0].ID, nil
}

// accountPath is the path of an account that is named by its id or its address.
func accountPath(cmd *cobra.Command, c *adminClient, name string) (string, error) {
	id, err := findAccount(cmd, c, name)
	if err != nil {
		return "", err
	}
	return pathOf("accounts", id, "")
}

func createAccount(cmd *cobra.Command, c *adminClient, _ []string) error {
	return sendAccount(cmd, c, http.MethodPost, "/accounts")
}

func updateAccount(cmd *cobra.Command, c *adminClient, args []string) error {
	path, err := accountPath(cmd, c, args[0])
	if err != nil {
		return err
	}
	return sendAccount(cmd, c, http.MethodPatch, path)
}

func sendAccount(cmd *cobra.Command, c *adminClient, method, path string) error {
	body := map[string]any{}
	if err := collect(cmd, body, accountFlags); err != nil {
		return err
	}
	return printAccount(cmd, c, method, path, body)
}

func showAccount(cmd *cobra.Command, c *adminClient, args []string) error {
	path, err := accountPath(cmd, c, args[0])
	if err != nil {
		return err
	}
	return printAccount(cmd, c, http.MethodGet, path, nil)
}

func printAccount(cmd *cobra.Command, c *adminClient, method, path string, body any) error {
	a, raw, err := decoded[accountAnswer](cmd.Context(), c, method, path, body)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printRaw(cmd, raw)
	}
	return printRows(cmd, a.rows())
}

func listAccounts(cmd *cobra.Command, c *adminClient, _ []string) error {
	if wantsJSON(cmd) {
		return printAllRaw(cmd, c, "/accounts")
	}
	accounts, err := readList[accountAnswer](cmd.Context(), c, "/accounts")
	if err != nil {
		return err
	}
	rows := [][]string{{"NUMBER", "ID", "EMAIL", "COMPANY", "ACTIVE", "CREATED"}}
	for _, a := range accounts {
		rows = append(rows, []string{fmt.Sprint(a.Number), a.ID, a.Email, a.Company, fmt.Sprint(a.Active), shortTime(a.CreatedAt)})
	}
	return printRows(cmd, rows)
}

func deleteAccount(cmd *cobra.Command, c *adminClient, args []string) error {
	path, err := accountPath(cmd, c, args[0])
	if err != nil {
		return err
	}
	raw, err := c.call(cmd.Context(), http.MethodDelete, path, nil)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) && len(raw) > 0 {
		return printRaw(cmd, raw)
	}
	cmd.PrintErrln("the account is deleted, and its keys are revoked")
	return nil
}
