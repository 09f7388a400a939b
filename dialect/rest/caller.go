package rest

import (
	"context"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// caller is who makes a call: the holder of a key, or without a grant the
// operator of the machine.
type caller struct {
	grant *keystore.Grant
	// once begins to answer a POST that may have an Idempotency-Key, with its
	// body. The operator of the machine has none.
	once func(ctx context.Context, body []byte) (*keystore.Once, error)
	// recheck judges the grant again, and returns the one to go on with.
	recheck func(*keystore.Grant) (*keystore.Grant, error)
}

// actor is the caller in the words of the domain.
func (c caller) actor() keystore.Actor {
	if c.grant == nil {
		return keystore.Operator()
	}
	return keystore.Holder(c.grant)
}

func (c caller) isOperator() bool { return c.actor().IsOperator() }

// sees reports whether what belongs to the account is there for the caller.
func (c caller) sees(accountID string) bool {
	return c.isOperator() || c.grant.AccountID == accountID
}

// mayCall refuses a call that is for operators to any other caller.
func (c *call) mayCall() error {
	if !c.forHolders && !c.caller.isOperator() {
		return refuse(keystore.ErrForbidden, "", "the presented key may not do this: it takes the role "+keystore.RoleOperator)
	}
	return nil
}

// recheck judges the caller anew, and where anything changed, what the caller may
// do.
func (c *call) recheck() error {
	before := c.caller.grant
	if before == nil {
		return nil
	}
	fresh, err := c.caller.recheck(before)
	if err != nil || fresh == before {
		return err
	}
	c.caller.grant = fresh
	if err := c.mayCall(); err != nil {
		return err
	}
	return c.findOwn()
}

// findOwn refuses what the path names unless it exists and is the caller's to
// see. This is the one place that keeps holders apart: what is another's is
// refused in the very words for what does not exist. An object never changes
// its account, so the answer holds as long as the caller's rights do.
func (c *call) findOwn() error {
	owner, named, err := c.owner()
	if err != nil {
		return err
	}
	if named && !c.caller.sees(owner) {
		return keystore.ErrNotFound
	}
	return nil
}

// namesIDs refuses a path with what can't be an id, which never reaches the store.
func (c *call) namesIDs() error {
	for name := range owners {
		if id := c.PathValue(name); id != "" && !keystore.ValidID(id) {
			return keystore.ErrNotFound
		}
	}
	return nil
}

// owner returns the id of the account to which belongs what the path names, if
// it names anything.
func (c *call) owner() (accountID string, named bool, err error) {
	for name, find := range owners {
		id := c.PathValue(name)
		if id == "" {
			continue
		}
		accountID, err = find(c, id)
		return accountID, true, err
	}
	return "", false, nil
}

// owners finds the account of what a segment of a path names. No path names two
// things.
var owners = map[string]func(c *call, id string) (string, error){
	"account": func(c *call, id string) (string, error) {
		a, err := c.account(id)
		if err != nil {
			return "", err
		}
		return a.ID, nil
	},
	"credential": func(c *call, id string) (string, error) {
		cr, err := c.credential(id)
		if err != nil {
			return "", err
		}
		return cr.AccountID, nil
	},
	"key": func(c *call, id string) (string, error) {
		var cr *keystore.Credential
		err := c.keyring.View(c.Context(), func(r keystore.Reader) error {
			k, err := r.Key(id)
			if err == nil {
				cr, err = r.Credential(k.CredentialID)
			}
			return err
		})
		if err != nil {
			return "", err
		}
		return cr.AccountID, nil
	},
}

func (c *call) account(id string) (a *keystore.Account, err error) {
	err = c.keyring.View(c.Context(), func(r keystore.Reader) (err error) {
		a, err = r.Account(id)
		return err
	})
	return a, err
}

func (c *call) credential(id string) (cr *keystore.Credential, err error) {
	err = c.keyring.View(c.Context(), func(r keystore.Reader) (err error) {
		cr, err = r.Credential(id)
		return err
	})
	return cr, err
}
