package dialect

import (
	"errors"
	"fmt"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// ParseOverlap reads an option overlap: how long older keys go on working. What
// is allowed is told in the words of [keystore.ParseOverlap].
func ParseOverlap(text string) (keystore.Overlap, error) {
	overlap, err := keystore.ParseOverlap(text)
	var wrong *keystore.Error
	if errors.As(err, &wrong) {
		return overlap, fmt.Errorf("overlap %q: it %s", text, wrong.Detail)
	}
	return overlap, err
}
