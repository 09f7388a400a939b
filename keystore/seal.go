package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// MasterKeySize is the size of the key under which texts are sealed, in bytes.
const MasterKeySize = 32

// sealer keeps key texts recoverable: AES-256-GCM under the operator's master
// key, bound to the key's id. A nil sealer seals nothing.
type sealer struct{ aead cipher.AEAD }

func newSealer(master []byte) (*sealer, error) {
	if master == nil {
		return nil, nil
	}
	if len(master) != MasterKeySize {
		return nil, fmt.Errorf("the master key has %d bytes; use %d", len(master), MasterKeySize)
	}
	block, err := aes.NewCipher(master)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &sealer{aead}, err
}

func (s *sealer) seal(made secret) []byte {
	if s == nil {
		return nil
	}
	return s.aead.Seal(nil, nil, []byte(made.text), []byte(made.id))
}

// Reveal returns the text of a key that was sealed under the configured master
// key. ErrNotFound says that it can't be shown: it was not sealed, or under
// another master key.
func (kr *Keyring) Reveal(k *Key) (string, error) {
	if kr.sealer == nil || k.Sealed == nil {
		return "", ErrNotFound
	}
	text, err := kr.sealer.aead.Open(nil, nil, k.Sealed, []byte(k.ID))
	if err != nil {
		return "", fmt.Errorf("%w: the key's text does not open under this master key", ErrNotFound)
	}
	return string(text), nil
}
