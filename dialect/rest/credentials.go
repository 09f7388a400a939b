package rest

import (
	"net/netip"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// credentialMembers are what an operator decides about a credential.
type credentialMembers struct {
	Package     field[string]            `json:"package"`
	Roles       field[[]string]          `json:"roles"`
	Active      field[bool]              `json:"active"`
	Description field[string]            `json:"description"`
	AllowedIPs  field[[]string]          `json:"allowed_ips"`
	Metadata    field[map[string]string] `json:"metadata"`
	ExpiresAt   field[string]            `json:"expires_at"`
}

// set writes the members that are present. Null clears.
func (in credentialMembers) set(cr *keystore.Credential) error {
	in.Package.set(&cr.Package)
	in.Roles.set(&cr.Roles)
	in.Description.set(&cr.Description)
	in.Metadata.set(&cr.Metadata)
	if err := in.Active.setRequired("active", &cr.Active); err != nil {
		return err
	}
	if err := setParsed(in.AllowedIPs, &cr.AllowedIPs, parseRanges); err != nil {
		return err
	}
	return setParsed(in.ExpiresAt, &cr.ExpiresAt, parseExpiry)
}

func createCredential(c *call, in credentialMembers) (reply, error) {
	cr := keystore.Credential{AccountID: c.PathValue("account")}
	if err := refuseInactive(in.Active); err != nil {
		return reply{}, err
	}
	if err := in.set(&cr); err != nil {
		return reply{}, err
	}
	answer := func(made *keystore.Issued) (reply, error) {
		return c.created("credentials", made.Credential.ID, issued{credentialOf(made.Credential), newKeyOf(made)})
	}
	made, err := c.keyring.Issue(c.Context(), c.caller.actor(), cr, recorded(c, answer))
	if err != nil {
		return reply{}, err
	}
	return answer(made)
}

func listCredentials(c *call) (reply, error) {
	return answerPage(c, func(page keystore.Page) (crs []*keystore.Credential, err error) {
		err = c.keyring.View(c.Context(), func(r keystore.Reader) (err error) {
			if _, err = r.Account(c.PathValue("account")); err == nil {
				crs, err = r.Credentials(c.PathValue("account"), page)
			}
			return err
		})
		return crs, err
	}, credentialOf)
}

func showCredential(c *call) (reply, error) {
	cr, err := c.credential(c.PathValue("credential"))
	if err != nil {
		return reply{}, err
	}
	return ok(credentialOf(cr))
}

func updateCredential(c *call, in credentialMembers) (reply, error) {
	if isEmpty(in) {
		return showCredential(c)
	}
	cr, err := c.keyring.UpdateCredential(c.Context(), c.caller.actor(), c.PathValue("credential"), in.set)
	if err != nil {
		return reply{}, err
	}
	return ok(credentialOf(cr))
}

func deleteCredential(c *call) (reply, error) {
	return done, c.keyring.DeleteCredential(c.Context(), c.PathValue("credential"))
}

// rotationMembers say how to rotate.
type rotationMembers struct {
	Overlap field[string] `json:"overlap"`
}

func rotateCredential(c *call, in rotationMembers) (reply, error) {
	return rotate(c, c.PathValue("credential"), in)
}

func rotate(c *call, credentialID string, in rotationMembers) (reply, error) {
	r := keystore.Rotation{CredentialID: credentialID}
	if err := setParsed(in.Overlap, &r.Overlap, keystore.ParseOverlap); err != nil {
		return reply{}, err
	}
	answer := func(made *keystore.Issued) (reply, error) {
		return ended(rotated{newKeyOf(made), keysOf(made.Previous)})
	}
	made, err := c.keyring.Rotate(c.Context(), c.caller.actor(), r, recorded(c, answer))
	if err != nil {
		return reply{}, err
	}
	return answer(made)
}

// parseExpiry reads a moment at which something is to end. Moments that an
// [keystore.Instant] can't tell from "never" are long past.
func parseExpiry(s string) (keystore.Instant, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, refuse(keystore.ErrInvalid, "expires_at", "must be a time such as 2030-01-31T12:00:00Z (RFC 3339), or null for never")
	}
	at := keystore.InstantOf(t)
	if at <= 0 {
		return 0, refuse(keystore.ErrInvalid, "expires_at", "must be in the future")
	}
	return at, nil
}

// parseRanges reads addresses and CIDR ranges. An address is a range of one,
// and the bits of a range behind its length are dropped: 192.0.2.7/24 is
// 192.0.2.0/24.
func parseRanges(texts []string) ([]netip.Prefix, error) {
	ranges := make([]netip.Prefix, 0, len(texts))
	for _, s := range texts {
		p, ok := parseRange(s)
		if !ok {
			return nil, refuse(keystore.ErrInvalid, "allowed_ips", "must be addresses or CIDR ranges such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")
		}
		ranges = append(ranges, p)
	}
	return ranges, nil
}

func parseRange(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() { // clients of IPv4 are compared as such
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), p.IsValid()
}
