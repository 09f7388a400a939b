package keystore

import (
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What values may be, in one place. Lengths are in characters.
const (
	maxEmail      = 254
	maxText       = 256
	maxRole       = 128
	maxRoles      = 64
	maxIPs        = 64
	maxPairs      = 64
	maxPairName   = 64
	maxPairValue  = 1024
	reservedRoles = "api_keys:"
)

// Roles that open the management routes of dialect rest. Roles that begin with
// "api_keys:" are reserved: only an operator gives them.
const (
	// RoleOperator may do everything.
	RoleOperator = reservedRoles + "operator"
	// RoleSelf may read its own account, and rotate, revoke and shorten its
	// keys.
	RoleSelf = reservedRoles + "self"
)

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// ValidID reports whether id can be an account's id: 1 to 128 letters, digits,
// '.', '_', ':' or '-', beginning with a letter or digit.
func ValidID(id string) bool { return idPattern.MatchString(id) }

// ValidateRole reports why r can't be a role: it is not 1 to 128 printable
// characters without comma and quote, or a reserved name that does not exist.
func ValidateRole(r string) error {
	n := utf8.RuneCountInString(r)
	bad := !utf8.ValidString(r) || strings.ContainsAny(r, `,"`) ||
		strings.ContainsFunc(r, func(c rune) bool { return !unicode.IsPrint(c) })
	if n == 0 || n > maxRole || bad {
		return fmt.Errorf("use 1 to %d printable characters without comma or quote", maxRole)
	}
	if strings.HasPrefix(r, reservedRoles) && r != RoleOperator && r != RoleSelf {
		return errors.New("roles beginning with api_keys: are reserved; there are " + RoleOperator + " and " + RoleSelf)
	}
	return nil
}

// cleanRoles checks roles and drops repetitions.
func cleanRoles(member string, roles []string) ([]string, error) {
	out := []string{}
	for _, r := range roles {
		if err := ValidateRole(r); err != nil {
			return nil, invalid(member, "%q: %s", r, err)
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	if len(out) > maxRoles {
		return nil, invalid(member, "at most %d are allowed", maxRoles)
	}
	return out, nil
}

// checkEmail accepts an empty address or a plain RFC 5322 addr-spec.
func checkEmail(email string) error {
	if email == "" {
		return nil
	}
	addr, err := mail.ParseAddress(email)
	if err != nil || addr.Address != email || len(email) > maxEmail || hasControl(email) {
		return invalid("email", "must be one plain address such as name@example.com, of at most %d characters", maxEmail)
	}
	return nil
}

// Mailable reports whether a mail can go to the address of an account: it is one
// plain address that stays on its line. Line separators of Unicode are no control
// characters, and so stand in addresses that were accepted.
func Mailable(email string) bool {
	return email != "" && checkEmail(email) == nil && !strings.ContainsAny(email, "\u2028\u2029")
}

func checkText(member, text string, limit int) error {
	if utf8.RuneCountInString(text) > limit || !utf8.ValidString(text) || hasControl(text) {
		return invalid(member, "must be at most %d characters of UTF-8 without control characters", limit)
	}
	return nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// checkPairs checks a string map of the operator's own data.
func checkPairs(member string, pairs map[string]string) error {
	if len(pairs) > maxPairs {
		return invalid(member, "at most %d members are allowed", maxPairs)
	}
	for name, value := range pairs {
		if name == "" {
			return invalid(member, "names must not be empty")
		}
		if err := checkText(member+" name", name, maxPairName); err != nil {
			return err
		}
		if err := checkText(member+"."+name, value, maxPairValue); err != nil {
			return err
		}
	}
	return nil
}

func (a *Account) validate() error {
	if !ValidID(a.ID) {
		return invalid("id", "must be 1 to 128 letters, digits, '.', '_', ':' or '-', beginning with a letter or digit")
	}
	if err := checkEmail(a.Email); err != nil {
		return err
	}
	for _, f := range []struct{ member, text string }{
		{"first_name", a.FirstName}, {"last_name", a.LastName}, {"company", a.Company},
		{"phone", a.Phone}, {"address", a.Address}, {"siren", a.SIREN},
	} {
		if err := checkText(f.member, f.text, maxText); err != nil {
			return err
		}
	}
	var err error
	if a.Roles, err = cleanRoles("roles", a.Roles); err != nil {
		return err
	}
	return checkPairs("attributes", a.Attributes)
}

func (c *Credential) validate() error {
	var err error
	if c.Roles, err = cleanRoles("roles", c.Roles); err != nil {
		return err
	}
	if err := checkText("description", c.Description, MaxDescription); err != nil {
		return err
	}
	if len(c.AllowedIPs) > maxIPs {
		return invalid("allowed_ips", "at most %d are allowed", maxIPs)
	}
	for _, p := range c.AllowedIPs {
		if !p.IsValid() {
			return invalid("allowed_ips", "must be addresses or CIDR ranges such as 192.0.2.0/24")
		}
	}
	return checkPairs("metadata", c.Metadata)
}
