package rest

import (
	"errors"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// accountMembers are what an operator decides about an account.
type accountMembers struct {
	Email      field[string]            `json:"email"`
	Active     field[bool]              `json:"active"`
	Roles      field[[]string]          `json:"roles"`
	FirstName  field[string]            `json:"first_name"`
	LastName   field[string]            `json:"last_name"`
	Company    field[string]            `json:"company"`
	Phone      field[string]            `json:"phone"`
	Address    field[string]            `json:"address"`
	SIREN      field[string]            `json:"siren"`
	Attributes field[map[string]string] `json:"attributes"`
}

// set writes the members that are present. Null clears.
func (in accountMembers) set(a *keystore.Account) error {
	in.Email.set(&a.Email)
	in.Roles.set(&a.Roles)
	in.FirstName.set(&a.FirstName)
	in.LastName.set(&a.LastName)
	in.Company.set(&a.Company)
	in.Phone.set(&a.Phone)
	in.Address.set(&a.Address)
	in.SIREN.set(&a.SIREN)
	in.Attributes.set(&a.Attributes)
	return in.Active.setRequired("active", &a.Active)
}

// accountCreation is an account before it has a number and times.
type accountCreation struct {
	ID field[string] `json:"id"`
	accountMembers
}

func createAccount(c *call, in accountCreation) (reply, error) {
	var a keystore.Account
	if err := refuseInactive(in.Active); err != nil {
		return reply{}, err
	}
	if in.ID.null || in.ID.present && in.ID.value == "" {
		return reply{}, refuse(keystore.ErrInvalid, "id", "must be left out or be 1 to 128 letters, digits, '.', '_', ':' or '-', beginning with a letter or digit")
	}
	in.ID.set(&a.ID)
	if err := in.set(&a); err != nil {
		return reply{}, err
	}
	answer := func(made *keystore.Account) (reply, error) {
		return c.created("accounts", made.ID, accountOf(made))
	}
	made, err := c.keyring.CreateAccount(c.Context(), a, recorded(c, answer))
	if err != nil {
		return reply{}, err
	}
	return answer(made)
}

// refuseInactive refuses to make what is deactivated from the start: the domain
// makes everything active.
func refuseInactive(active field[bool]) error {
	if active.present && !active.null && !active.value {
		return refuse(keystore.ErrInvalid, "active", "must be true or left out: it is active when made, and deactivated with PATCH")
	}
	return nil
}

func listAccounts(c *call) (reply, error) {
	if c.query.Has("email") {
		return findAccount(c, c.query.Get("email"))
	}
	return answerPage(c, func(page keystore.Page) (as []*keystore.Account, err error) {
		err = c.keyring.View(c.Context(), func(r keystore.Reader) (err error) {
			as, err = r.Accounts(page)
			return err
		})
		return as, err
	}, accountOf)
}

// findAccount answers a list of the one account with the address, or of none.
func findAccount(c *call, email string) (reply, error) {
	if c.query.Has("after") {
		return reply{}, refuse(errParameter, "after", "can't be combined with email, which finds one account at most")
	}
	if !storable(email) {
		return reply{}, refuse(errParameter, "email", "must be UTF-8 without control characters")
	}
	return answerPage(c, func(keystore.Page) (as []*keystore.Account, err error) {
		err = c.keyring.View(c.Context(), func(r keystore.Reader) error {
			a, err := r.AccountByEmail(email)
			if err == nil {
				as = []*keystore.Account{a}
			}
			return err
		})
		if email == "" || errors.Is(err, keystore.ErrNotFound) {
			return nil, nil
		}
		return as, err
	}, accountOf)
}

func showAccount(c *call) (reply, error) {
	a, err := c.account(c.PathValue("account"))
	if err != nil {
		return reply{}, err
	}
	return ok(accountOf(a))
}

func updateAccount(c *call, in accountMembers) (reply, error) {
	if isEmpty(in) {
		return showAccount(c)
	}
	a, err := c.keyring.UpdateAccount(c.Context(), c.PathValue("account"), in.set)
	if err != nil {
		return reply{}, err
	}
	return ok(accountOf(a))
}

func deleteAccount(c *call) (reply, error) {
	return done, c.keyring.DeleteAccount(c.Context(), c.PathValue("account"))
}
