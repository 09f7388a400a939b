package apikeys

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "api-keys",
		Usage: "<command>",
		Short: "Issues, rotates and revokes API keys of a running Caddy",
		Long: `
Manages accounts, their credentials and keys in a running Caddy that has the
module api_keys, over its admin endpoint.

An account owns credentials; a credential is one named use of the API, with
roles of its own; a credential holds keys. A new key is printed once, alone, on
standard output; everything that is said about it goes to standard error, so
that it can be piped:

	$ caddy api-keys account create --id acme --email ops@acme.example
	$ caddy api-keys issue --account acme --role read > acme.key
	$ caddy api-keys rotate 01990f3e-8d5c-7c5e-b1a2-6f1d1c0a9b11 --overlap 24h > acme.key
	$ caddy api-keys list --account ops@acme.example

With --json, commands print the JSON of the API instead. The exit status is 0 if
the command did what it says, else 1.
`,
		CobraFunc: addCommands,
	})
}

// addCommands fills in the command api-keys.
func addCommands(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.String("address", "", "Address of Caddy's admin endpoint (default: that of --config, else "+caddy.DefaultAdminListen+")")
	flags.StringP("config", "c", "", "Configuration file in which to find the address")
	flags.StringP("adapter", "a", "", "Name of the adapter to apply to the configuration file")
	flags.Bool("json", false, "Print the JSON of the API")
	needsCommand(cmd)
	cmd.AddCommand(accountCommand(), issueCommand(), rotateCommand(), revokeCommand(), listCommand(), verifyCommand(), backupCommand(), restoreCommand(), exportCommand(), importCommand())
}

// needsCommand has a command that only groups others say what they are, and
// refuse a word that is none of them: without it a misspelt "revoke" would end
// in success.
func needsCommand(cmd *cobra.Command) {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// withClient makes a command's function of one that wants a client.
func withClient(do func(*cobra.Command, *adminClient, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		flag := func(name string) string { return cmd.Flag(name).Value.String() }
		address, err := caddycmd.DetermineAdminAPIAddress(flag("address"), nil, flag("config"), flag("adapter"))
		if err != nil {
			return err
		}
		client, err := newAdminClient(address)
		if err != nil {
			return err
		}
		err = do(cmd, client, args)
		if client.effectiveBy != "" {
			cmd.PrintErrf("some node has not confirmed it: it holds on every node by %s\n", client.effectiveBy)
		}
		return err
	}
}

func wantsJSON(cmd *cobra.Command) bool { return cmd.Flag("json").Value.String() == "true" }

// printRaw writes the JSON of the API.
func printRaw(cmd *cobra.Command, raw []byte) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), string(raw))
	return err
}

// printSecret writes the text of a new key alone to standard output. It is the
// only time that the text is to be had, so that a failure is told.
func printSecret(cmd *cobra.Command, key newKeyAnswer) error {
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), key.Secret); err != nil {
		return fmt.Errorf("key %s was made, but could not be written, and can't be shown again: %w", key.ID, err)
	}
	return nil
}

// pathOf is a path with an id in it. The text of a key must not get into a URL:
// URLs are logged.
func pathOf(kind, id, rest string) (string, error) {
	if dialect.Redact(id) != id {
		return "", errKeyAsArgument
	}
	if id == "" {
		return "", errors.New("the id is empty")
	}
	return "/" + kind + "/" + url.PathEscape(id) + rest, nil
}

var errKeyAsArgument = errors.New("this is the text of a key. A command line is seen by other users and kept in the shell's history: " +
	"treat the key as leaked. To revoke it, name its id, which is what stands between the two underscores")

func issueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issue --account <id|email> [--package <name>] [--role <role>]...",
		Short: "Makes a credential with its first key",
		Long: `
Makes a credential for an account, and prints its first key on standard output.
The key is not shown again.`,
		Example: `  $ caddy api-keys issue --account acme --role read --role write
  $ caddy api-keys issue --account ops@acme.example --package Coverage --description "nightly export" \
      --allowed-ip 192.0.2.0/24 --expires-in 90d > coverage.key`,
		Args: cobra.NoArgs,
		RunE: withClient(issueKey),
	}
	f := cmd.Flags()
	f.String("account", "", "Id or e-mail address of the account (required)")
	f.String("package", "", "Package of the credential; required once packages are declared")
	f.StringArray("role", nil, "Role of the credential, beside those of its package (repeatable)")
	f.String("description", "", "What the credential is for")
	f.StringArray("allowed-ip", nil, "Client address or CIDR range that may use the keys (repeatable; default: all)")
	f.StringArray("metadata", nil, "Your own data, as name=value (repeatable)")
	f.String("expires-in", "", "When the credential and all its keys stop, from now, such as 12h or 90d (default: never)")
	_ = cmd.MarkFlagRequired("account")
	return cmd
}

func issueKey(cmd *cobra.Command, c *adminClient, _ []string) error {
	body := map[string]any{}
	if err := refuseEmpty(cmd, credentialFlags); err != nil {
		return err
	}
	if err := collect(cmd, body, credentialFlags); err != nil {
		return err
	}
	account, err := findAccount(cmd, c, cmd.Flag("account").Value.String())
	if err != nil {
		return err
	}
	path, err := pathOf("accounts", account, "/credentials")
	if err != nil {
		return err
	}
	made, raw, err := decoded[issuedAnswer](cmd.Context(), c, http.MethodPost, path, body)
	if err != nil {
		return fmt.Errorf("account %s: %w", account, err)
	}
	if wantsJSON(cmd) {
		return printRaw(cmd, raw)
	}
	cmd.PrintErrf("account %s, credential %s, key %s\n", account, made.Credential.ID, made.Key.ID)
	return printSecret(cmd, made.Key)
}

// refuseEmpty refuses a flag that is given without a value. A variable that is not
// set, as in --allowed-ip "$OFFICE", must not make a key that works everywhere.
func refuseEmpty(cmd *cobra.Command, flags []flagMember) error {
	for _, f := range flags {
		flag := cmd.Flag(f.flag)
		if value := flag.Value.String(); flag.Changed && (value == "" || value == "[]") {
			return fmt.Errorf("--%s is empty: give it a value, or leave it out", f.flag)
		}
	}
	return nil
}

func rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate <credential> [--overlap <duration>]",
		Short: "Gives a credential a new key",
		Long: `
Gives a credential a new key, and prints it on standard output. The key is not
shown again. Older keys of the credential stop as --overlap says: "0s" revokes
them at once, a duration stops them then, and "until_first_use" stops them when
the new key is first used, which must be within 24 hours.`,
		Example: `  $ caddy api-keys rotate 01990f3e-8d5c-7c5e-b1a2-6f1d1c0a9b11 --overlap 24h > new.key`,
		Args:    cobra.ExactArgs(1),
		RunE:    withClient(rotateKey),
	}
	cmd.Flags().String("overlap", "0s", "How long older keys go on working: 0s, a duration such as 12h or 7d, or until_first_use")
	return cmd
}

func rotateKey(cmd *cobra.Command, c *adminClient, args []string) error {
	path, err := pathOf("credentials", args[0], "/rotate")
	if err != nil {
		return err
	}
	made, raw, err := decoded[rotatedAnswer](cmd.Context(), c, http.MethodPost, path,
		map[string]any{"overlap": overlapOf(cmd)})
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printRaw(cmd, raw)
	}
	cmd.PrintErrf("credential %s, key %s\n", args[0], made.Key.ID)
	for _, k := range made.Previous {
		cmd.PrintErrf("key %s is %s\n", k.ID, k.stateAndEnd())
	}
	return printSecret(cmd, made.Key)
}

// overlapOf is the overlap as the API takes it, which knows no days. What is no
// duration is left to the API to judge.
func overlapOf(cmd *cobra.Command) string {
	text := cmd.Flag("overlap").Value.String()
	if d, err := caddy.ParseDuration(text); err == nil {
		return d.String()
	}
	return text
}

func revokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke <key> [--reason <text>]",
		Short: "Ends a key for ever",
		Long: `
Ends a key for ever. The key is named by its id, never by its text: the id of a
key such as key_<id>_<secret> stands between the two underscores, and "list"
shows those of all keys.`,
		Example: `  $ caddy api-keys revoke 5bR2kW0xq9Za --reason "found in a public repository"`,
		Args:    cobra.ExactArgs(1),
		RunE:    withClient(revokeKey),
	}
	cmd.Flags().String("reason", "", "Why, for whoever reads the key later")
	return cmd
}

func revokeKey(cmd *cobra.Command, c *adminClient, args []string) error {
	path, err := pathOf("keys", args[0], "/revoke")
	if err != nil {
		return err
	}
	body := map[string]any{}
	if reason := cmd.Flag("reason"); reason.Changed {
		body["reason"] = reason.Value.String()
	}
	raw, err := c.call(cmd.Context(), http.MethodPost, path, body)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printRaw(cmd, raw)
	}
	cmd.PrintErrf("key %s is revoked\n", args[0])
	return nil
}

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify -",
		Short: "Says what a key on standard input is worth",
		Long: `
Reads the text of a key from standard input, and says whether it works now and
whose it is. It is no use of the key. The exit status is 0 if the key works, and
1 if not.`,
		Example: `  $ caddy api-keys verify - < acme.key
  $ read -rs KEY && printf %s "$KEY" | caddy api-keys verify -`,
		Args: verifyArgs,
		RunE: withClient(verifyKey),
	}
}

// verifyArgs refuses a key as an argument, without repeating it.
func verifyArgs(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] != "-" {
		return errors.New(`use "verify -" and give the key on standard input: a command line is seen by other users and kept in the shell's history`)
	}
	return nil
}

// maxKeyInput bounds what is read of standard input, in bytes; no key is as
// long.
const maxKeyInput = 4096

func verifyKey(cmd *cobra.Command, c *adminClient, _ []string) error {
	input, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxKeyInput))
	if err != nil {
		return fmt.Errorf("reading standard input: %w", err)
	}
	text := strings.TrimSpace(string(input))
	if text == "" {
		return errors.New("there is no key on standard input")
	}
	v, raw, err := decoded[verdictAnswer](cmd.Context(), c, http.MethodPost, "/keys/verify", map[string]any{"key": text})
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		err = printRaw(cmd, raw)
	} else {
		err = printRows(cmd, v.rows())
	}
	if err == nil && !v.Active {
		cmd.SilenceErrors = true // it is said already
		return errors.New("the key does not work: " + v.Code)
	}
	return err
}

// credentialFlags are the flags of issue, with the members of the body that they
// set.
var credentialFlags = []flagMember{
	{"package", "package", asText},
	{"role", "roles", asList},
	{"description", "description", asText},
	{"allowed-ip", "allowed_ips", asList},
	{"metadata", "metadata", asPairs},
	{"expires-in", "expires_at", asExpiry},
}

// asExpiry turns a duration from now into a time.
func asExpiry(cmd *cobra.Command, flag string) (any, error) {
	d, err := caddy.ParseDuration(cmd.Flag(flag).Value.String())
	if err != nil || d <= 0 {
		return nil, fmt.Errorf("--%s: use a duration such as 12h or 90d", flag)
	}
	return time.Now().Add(d).UTC().Format(time.RFC3339), nil
}
