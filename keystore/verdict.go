package keystore

import (
	"net/netip"
	"slices"
	"time"
)

// Verdict is what a request's key is worth.
type Verdict uint8

// The verdicts, in the order in which they are reached: the first that applies
// is the answer. The zero Verdict is not one, so that a forgotten answer can't
// pass for OK.
const (
	_ Verdict = iota
	// OK lets the request through.
	OK
	// MissingKey: no key was presented.
	MissingKey
	// AmbiguousKey: more than one credential was presented, or one repeatedly.
	AmbiguousKey
	// InvalidKey: the text is not that of any key.
	InvalidKey
	// PendingKey, ExpiredKey, RevokedKey: the holder proved possession of a key
	// that does not work yet, or no longer.
	PendingKey
	ExpiredKey
	RevokedKey
	// Inactive: the account or the credential is deactivated.
	Inactive
	// WrongPackage, MissingRole: the key is not what the route requires.
	WrongPackage
	MissingRole
	// IPNotAllowed: the client's address is not one the credential allows.
	IPNotAllowed
	// StoreUnavailable: the verdict needs the store, which can't answer.
	StoreUnavailable

	// Verdicts is how many values there are, for tables indexed by verdict.
	Verdicts = iota
)

var verdictCodes = [Verdicts]string{
	OK:               "ok",
	MissingKey:       "missing_key",
	AmbiguousKey:     "ambiguous_key",
	InvalidKey:       "invalid_key",
	PendingKey:       "pending_key",
	ExpiredKey:       "expired_key",
	RevokedKey:       "revoked_key",
	Inactive:         "inactive",
	WrongPackage:     "wrong_package",
	MissingRole:      "missing_role",
	IPNotAllowed:     "ip_not_allowed",
	StoreUnavailable: "store_unavailable",
}

// String is the verdict's code on the wire, in logs and in metrics.
func (v Verdict) String() string {
	if int(v) >= len(verdictCodes) || verdictCodes[v] == "" {
		return "none"
	}
	return verdictCodes[v]
}

// Requirement is what a route demands of a key beside being valid. The zero
// Requirement is met by every key that is not of a management package.
type Requirement struct {
	// Packages and Roles are lists of alternatives: of each inner list the
	// credential must have at least one.
	Packages [][]string
	Roles    [][]string
	// Management is set on management routes, which the keys of packages that
	// are for management only open without being named.
	Management bool
}

// verdictAt judges what the grant itself says at now.
func (g *Grant) verdictAt(now Instant) Verdict {
	switch {
	case g.ActivatesAt <= now && now < g.until:
		return OK
	case g.RevokedAt != 0:
		return RevokedKey
	case g.StopsAt().reached(now):
		return ExpiredKey
	case now < g.ActivatesAt:
		return PendingKey
	case !g.AccountActive || !g.CredentialActive:
		return Inactive
	}
	return OK
}

// asksNothing reports whether every plain key meets it.
func (req *Requirement) asksNothing() bool { return len(req.Packages) == 0 && len(req.Roles) == 0 }

// meets judges the grant against what a route requires and where the client is.
func (kr *Keyring) meets(g *Grant, r *Request) Verdict {
	req := r.Requirement
	if g.plain && req.asksNothing() {
		return OK
	}
	if kr.isManagement(g.Package) && !req.Management && len(req.Packages) == 0 {
		return WrongPackage
	}
	for _, any := range req.Packages {
		if !slices.Contains(any, g.Package) {
			return WrongPackage
		}
	}
	for _, any := range req.Roles {
		if !slices.ContainsFunc(any, g.HasRole) {
			return MissingRole
		}
	}
	if len(g.AllowedIPs) > 0 && !g.allowsIP(r.ClientIP) {
		return IPNotAllowed
	}
	return OK
}

// HasRole reports whether the credential has the role.
func (g *Grant) HasRole(role string) bool { return slices.Contains(g.Roles, role) }

func (g *Grant) allowsIP(client string) bool {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(g.AllowedIPs, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// noticePeriod is how long before its expiry a key that nothing supersedes
// announces it.
const noticePeriod = 7 * 24 * time.Hour

// Notice is the stop time that the key's owner should learn of at now: that of
// a superseded key, or of one that expires within 7 days. Zero if there is
// none.
func (g *Grant) Notice(now Instant) Instant {
	stop := g.StopsAt()
	if stop == 0 || (!g.Superseded && stop > now.Add(noticePeriod)) {
		return 0
	}
	return stop
}

// awaitsFirstUse reports whether accepting the key now would be the use that
// stops older ones.
func (g *Grant) awaitsFirstUse() bool {
	return !g.plain && g.UnusedExpiresAt != 0 && g.FirstUsedAt == 0
}
