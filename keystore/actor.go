package keystore

import "slices"

// This file is who may obtain what. A request lasts as long as its client takes to
// send the body, and its grant is from before that. So each change reads the rights
// of its actor anew, in its own transaction: what was taken away meanwhile is not
// used, and what was given is.

// Actor is on whose behalf a change is made.
type Actor struct {
	operator    bool
	accountID   string
	packageName string
	roles       []string
	// keyID is that of the presented key, empty where none was.
	keyID string
}

// Operator may do everything.
func Operator() Actor { return Actor{operator: true} }

// Holder is the holder of a key: an operator if its credential has
// [RoleOperator].
func Holder(g *Grant) Actor {
	return Actor{g.HasRole(RoleOperator), g.AccountID, g.Package, g.Roles, g.KeyID}
}

// IsOperator reports whether the actor may do everything.
func (a Actor) IsOperator() bool { return a.operator }

// Current returns the actor with the rights that the credential of the presented
// key has in this transaction. The error is ErrKeyStopped if that key works no
// more.
func (kr *Keyring) Current(r Reader, a Actor) (Actor, error) {
	if a.keyID == "" {
		return a, nil
	}
	k, err := r.Key(a.keyID)
	if err != nil {
		return Actor{}, err
	}
	c, err := usable(r, k, kr.Now())
	switch {
	case err != nil:
		return Actor{}, err
	case c == nil:
		return Actor{}, &Error{ErrKeyStopped, "", "the presented key has stopped working"}
	}
	return Actor{slices.Contains(c.Roles, RoleOperator), c.AccountID, c.Package, c.Roles, a.keyID}, nil
}

// MayObtain reports, as ErrForbidden, why the actor may not get a key of a
// credential: nobody but an operator gets one of another account, with a role that
// they lack, or of a management package with a key that is not of that package.
// What is to hold for a change takes [Keyring.Current] in its transaction.
func (kr *Keyring) MayObtain(a Actor, c *Credential) error {
	switch {
	case a.operator:
		return nil
	case a.keyID != "" && c.AccountID != a.accountID:
		return forbidden("the credential is of another account than the presented key")
	case c.Package != a.packageName && kr.isManagement(c.Package):
		return forbidden("the credential is of a package for management, and the presented key is not")
	}
	for _, role := range c.Roles {
		if !slices.Contains(a.roles, role) {
			return forbidden("the credential has a role that the presented key lacks")
		}
	}
	return nil
}

// mayObtainNow is MayObtain with the rights that the actor has in this transaction.
func (kr *Keyring) mayObtainNow(r Reader, a Actor, c *Credential) error {
	a, err := kr.Current(r, a)
	if err != nil {
		return err
	}
	return kr.MayObtain(a, c)
}

// packageFor returns the package that a new credential of the actor's can be of.
// The error names only those of which the actor could get a key.
func (kr *Keyring) packageFor(a Actor, name string) (Package, error) {
	return kr.packages.findOf(name, func(p Package) bool {
		return kr.MayObtain(a, &Credential{AccountID: a.accountID, Package: p.Name, Roles: p.Roles}) == nil
	})
}
