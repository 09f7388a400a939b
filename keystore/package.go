package keystore

import (
	"fmt"
	"regexp"
	"slices"
	"time"
	"unique"
)

// DefaultMaxKeys is how many live keys a credential may have where its package
// does not say.
const DefaultMaxKeys = 10

// Package is a declared kind of credential, such as "Coverage": what its keys
// look like, and what a new one gets.
type Package struct {
	// Name is what routes require and credentials carry, case-sensitive.
	Name string
	// Format of new key texts. Default: token.
	Format Format
	// Length of new alphanumeric texts, in characters; zero for other formats.
	Length int
	// Prefix of new token texts. Default: the keyring's prefix.
	Prefix string
	// Roles that a new credential gets, beside those asked for.
	Roles []string
	// ExpiresIn is the lifetime of a new key. Zero means no expiry.
	ExpiresIn time.Duration
	// MaxKeys caps the live keys of a credential. Default: 10.
	MaxKeys int
	// Management marks keys that open only the routes that name this package.
	Management bool
}

var (
	packagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// ValidPrefix reports whether s can begin a token: a lower-case letter and 1 to
// 15 lower-case letters or digits.
func ValidPrefix(s string) bool {
	if len(s) < minPrefix || len(s) > maxPrefix {
		return false
	}
	for i := range len(s) {
		letter := s[i] >= 'a' && s[i] <= 'z'
		digit := s[i] >= '0' && s[i] <= '9'
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return true
}

// Validate reports what is wrong with the package's declaration.
func (p Package) Validate() error {
	if !packagePattern.MatchString(p.Name) {
		return fmt.Errorf("package name %q: use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", p.Name)
	}
	if err := p.validateFormat(); err != nil {
		return err
	}
	for _, r := range p.Roles {
		if err := ValidateRole(r); err != nil {
			return fmt.Errorf("package %s: role %q: %s", p.Name, r, err)
		}
	}
	if p.ExpiresIn < 0 || (p.ExpiresIn > 0 && p.ExpiresIn < time.Second) {
		return fmt.Errorf("package %s: expires_in %v: use at least 1s", p.Name, p.ExpiresIn)
	}
	if p.MaxKeys < 0 {
		return fmt.Errorf("package %s: max_keys %d: use 1 or more", p.Name, p.MaxKeys)
	}
	return nil
}

func (p Package) validateFormat() error {
	switch p.Format {
	case "", FormatToken:
		if p.Prefix != "" && !ValidPrefix(p.Prefix) {
			return fmt.Errorf("package %s: prefix %q: use a lower-case letter and 1 to 15 lower-case letters or digits", p.Name, p.Prefix)
		}
	case FormatUUID, FormatAlphanumeric:
		if p.Prefix != "" {
			return fmt.Errorf("package %s: prefix %q: only format token has a prefix", p.Name, p.Prefix)
		}
	default:
		return fmt.Errorf("package %s: format %q: use token, uuid or alphanumeric", p.Name, p.Format)
	}
	if p.Format == FormatAlphanumeric {
		if p.Length < MinAlphanumeric || p.Length > MaxAlphanumeric {
			return fmt.Errorf("package %s: format alphanumeric %d: use a length of %d to %d", p.Name, p.Length, MinAlphanumeric, MaxAlphanumeric)
		}
	} else if p.Length != 0 {
		return fmt.Errorf("package %s: length %d: only format alphanumeric has a length", p.Name, p.Length)
	}
	return nil
}

// withDefaults fills in what the declaration leaves out.
func (p Package) withDefaults(prefix string) Package {
	if p.Format == "" {
		p.Format = FormatToken
	}
	if p.Format == FormatToken && p.Prefix == "" {
		p.Prefix = prefix
	}
	if p.MaxKeys == 0 {
		p.MaxKeys = DefaultMaxKeys
	}
	return p
}

// packages are the declared packages by name, and the one for credentials
// without a package where none are declared.
type packages struct {
	byName map[string]Package
	none   Package
	// open are the names of those that are not for management.
	open []string
}

func newPackages(declared []Package, prefix string) (packages, error) {
	ps := packages{byName: map[string]Package{}, none: Package{}.withDefaults(prefix)}
	for _, p := range declared {
		if err := p.Validate(); err != nil {
			return packages{}, err
		}
		if _, taken := ps.byName[p.Name]; taken {
			return packages{}, fmt.Errorf("package %s is declared twice", p.Name)
		}
		ps.byName[p.Name] = p.withDefaults(prefix)
		if !p.Management {
			ps.open = append(ps.open, unique.Make(p.Name).Value())
		}
	}
	return ps, nil
}

// names returns the declared names, sorted.
func (ps packages) names() []string {
	names := make([]string, 0, len(ps.byName))
	for n := range ps.byName {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// find returns the package that a credential may be of.
func (ps packages) find(name string) (Package, error) {
	return ps.findOf(name, func(Package) bool { return true })
}

// findOf is find with an error that names only the packages that are offered.
func (ps packages) findOf(name string, offered func(Package) bool) (Package, error) {
	if p, ok := ps.byName[name]; ok {
		return p, nil
	}
	if len(ps.byName) == 0 {
		if name == "" {
			return ps.none, nil
		}
		return Package{}, invalid("package", "no packages are declared in the configuration: leave it out")
	}
	names := slices.DeleteFunc(ps.names(), func(n string) bool { return !offered(ps.byName[n]) })
	if len(names) == 0 {
		return Package{}, invalid("package", "is not declared")
	}
	return Package{}, invalid("package", "must be one of: %s", list(names))
}

// named returns the package of an existing credential. A name that is no longer
// declared gets the defaults, so that its keys can still be rotated away.
func (ps packages) named(name string) Package {
	if p, ok := ps.byName[name]; ok {
		return p
	}
	return ps.none
}
