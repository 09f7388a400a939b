package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofrs/flock"
)

// ErrLocked means that another process, or another Store of this one, has the
// store open.
var ErrLocked = errors.New("store in use")

// A process that is being replaced needs a moment to let its store go.
const (
	lockPatience = 2 * time.Second
	lockRetry    = 25 * time.Millisecond
)

// lockedError says who to stop. It is ErrLocked.
type lockedError struct{ store, lock string }

func (e *lockedError) Error() string {
	return fmt.Sprintf("api_keys: store %s is in use by another process (lock file %s): stop that process, or give this one a store of its own",
		e.store, e.lock)
}

func (e *lockedError) Is(target error) bool { return target == ErrLocked }

// lock takes the exclusive lock of the store at path. The lock is on a file
// of its own, which stays: the engine locks the store's file by other rules,
// and removing a lock file would let two processes lock different ones.
func lock(ctx context.Context, path string) (*flock.Flock, error) {
	name := path + ".lock"
	if err := checkFile(path, name); err != nil {
		return nil, err
	}
	held := flock.New(name, flock.SetPermissions(fileMode))
	patience, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	ok, err := held.TryLockContext(patience, lockRetry)
	switch {
	case ok:
		return held, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("api_keys: store %s: lock: %w", path, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &lockedError{store: path, lock: name}
	}
	return nil, refusal(path, "lock: %w", err)
}
