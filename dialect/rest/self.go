package rest

// showSelf answers what the presented key is.
func showSelf(c *call) (reply, error) {
	k, cr, err := c.keyring.Key(c.Context(), c.caller.grant.KeyID)
	if err != nil {
		return reply{}, err
	}
	a, err := c.account(cr.AccountID)
	if err != nil {
		return reply{}, err
	}
	return ok(self{accountOf(a), credentialOf(cr), keyOf(k)})
}

// rotateSelf rotates the credential of the presented key.
func rotateSelf(c *call, in rotationMembers) (reply, error) {
	return rotate(c, c.caller.grant.CredentialID, in)
}
