package sarus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	defaultThrottle    = 3 * time.Minute
	minThrottle        = time.Second
	defaultClientLimit = 20
	maxClientLimit     = 1_000_000
)

// check fills in the defaults, and reports what is wrong with the options.
func (d *Dialect) check() error {
	if !d.gateway.Mails && !d.gateway.ErrorsOnly {
		return errors.New("it sends keys by e-mail, but there is no mail server; " +
			"name one in the global option: api_keys { mail { smtp <host:port> ... } }")
	}
	if d.Throttle == 0 {
		d.Throttle = caddy.Duration(defaultThrottle)
	}
	if time.Duration(d.Throttle) < minThrottle {
		return fmt.Errorf("throttle %v: use at least %v, such as %v", time.Duration(d.Throttle), minThrottle, defaultThrottle)
	}
	if d.ClientLimit == 0 {
		d.ClientLimit = defaultClientLimit
	}
	if d.ClientLimit < 1 || d.ClientLimit > maxClientLimit {
		return fmt.Errorf("client_limit %d: use 1 to %d", d.ClientLimit, maxClientLimit)
	}
	return d.checkPackage()
}

// checkPackage holds the package against those declared.
func (d *Dialect) checkPackage() error {
	declared := d.gateway.Packages
	switch {
	case d.Package == "" && (len(declared) == 0 || d.gateway.ErrorsOnly):
		return nil
	case d.Package == "":
		return fmt.Errorf("package is missing: packages are declared, so say whose keys are sent: "+
			"package <name> (declared: %s)", names(declared))
	case len(declared) == 0:
		return fmt.Errorf("package %q: it is not declared, and none is; remove it, "+
			"or declare it in the global option: api_keys { package %s }", d.Package, d.Package)
	}
	i := slices.IndexFunc(declared, func(p keystore.Package) bool { return p.Name == d.Package })
	if i < 0 {
		return fmt.Errorf("package %q: it is not declared; declared: %s", d.Package, names(declared))
	}
	if j := slices.IndexFunc(declared[i].Roles, keystore.IsReservedRole); j >= 0 {
		return fmt.Errorf("package %q: it gives the role %s, and keys with such a role are not sent by e-mail; "+
			"name a package without it", d.Package, declared[i].Roles[j])
	}
	return nil
}

func names(packages []keystore.Package) string {
	out := make([]string, len(packages))
	for i, p := range packages {
		out[i] = p.Name
	}
	return strings.Join(out, ", ")
}
