package keystore

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// Vault is what all keyrings over one store share, also those of
// configurations that overlap in a reload: the store behind its [Cache], the
// [Clock], and the uses that wait to be written.
type Vault struct {
	*Cache
	clock  *Clock
	uses   uses
	report func(problem string, err error)
	// mails tells the worker that the outbox is not empty.
	mails chan struct{}
	// answering are the requests with an Idempotency-Key that are being answered,
	// by the digest of their reply.
	answering sync.Map

	stop sync.Once
	quit chan struct{}
	// running are the goroutines that Close ends: by quit, and by stopRunning.
	running     sync.WaitGroup
	stopRunning context.CancelFunc
}

const (
	// flushInterval is how often uses are written.
	flushInterval = 10 * time.Second
	// clockInterval is how often the time is written.
	clockInterval = time.Minute
	// writeTimeout bounds these writes.
	writeTimeout = 5 * time.Second

	// ClockSetting is the name of the setting that holds the latest time seen, as 8
	// bytes, big-endian, of an [Instant].
	ClockSetting = "clock"
)

// OpenVault opens a vault over a store, which it owns from then on, with a
// cache of at most cacheSize bytes. Report is told of what goes wrong in the
// background, and with a nil error of what is well again; it may be called at any time
// until Close returns.
func OpenVault(ctx context.Context, store Store, cacheSize int64, report func(problem string, err error), options ...VaultOption) (*Vault, error) {
	floor, err := lastSeen(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("reading the clock's last time: %w", err)
	}
	clock, behind := NewClock(floor)
	if behind > tolerated(store) {
		report("the system clock is behind the time this store has seen; verdicts go by the latter",
			fmt.Errorf("%v behind %v", behind.Round(time.Second), floor.Time().Format(time.RFC3339)))
	}
	cache, err := NewCache(store, cacheSize)
	if err != nil {
		return nil, err
	}
	v := &Vault{Cache: cache, clock: clock, report: report,
		mails: make(chan struct{}, 1), quit: make(chan struct{})}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	v.stopRunning = stop
	if store, ok := store.(Exclusive); ok && store.Exclusive() {
		v.running.Go(func() { v.known.run(background, store, report) })
	}
	if store, ok := shared(store); ok {
		if v.node, err = newNode(store, v, newVaultOptions(options)); err != nil {
			stop()
			cache.closeMemory()
			return nil, err
		}
		v.running.Go(func() { v.node.run(background) })
	}
	v.running.Go(v.run)
	return v, nil
}

// Now is the time by which verdicts are made.
func (v *Vault) Now() Instant { return v.clock.Now() }

// Close writes what is pending and closes the store. Calls that are running,
// and later ones, answer ErrUnavailable.
func (v *Vault) Close() error {
	v.stop.Do(func() {
		close(v.quit)
		v.stopRunning()
	})
	v.running.Wait()
	return v.Cache.Close()
}

// run writes uses and the time until Close.
func (v *Vault) run() {
	flush := time.NewTicker(flushInterval)
	defer flush.Stop()
	clock := time.NewTicker(clockInterval)
	defer clock.Stop()
	for {
		select {
		case <-flush.C:
			v.flushUses()
		case <-clock.C:
			v.saveClock()
		case <-v.quit:
			v.flushUses()
			v.saveClock()
			return
		}
	}
}

func (v *Vault) flushUses() {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := v.uses.flush(ctx, v.store); err != nil {
		v.report("the last uses of keys could not be written; they are kept and tried again", err)
	}
}

// mailQueued wakes the worker up.
func (v *Vault) mailQueued() {
	select {
	case v.mails <- struct{}{}:
	default: // it is being woken already
	}
}

// saveClock stores the time, unless a later one is stored, so that a start with an
// earlier wall clock does not bring expired keys back to life. What ended by then is
// swept out.
func (v *Vault) saveClock() {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	now := v.Now()
	value := binary.BigEndian.AppendUint64(nil, uint64(now))
	err := v.store.Update(ctx, func(tx Tx) error {
		if err := tx.Prune(now); err != nil {
			return err
		}
		if seen, err := timeSeen(tx); err != nil || seen >= now {
			return err
		}
		return tx.SetSetting(ClockSetting, value)
	})
	if err != nil {
		v.report("the time could not be written to the store", err)
	}
}

// lastSeen is the latest time that a vault stored, zero if none did.
func lastSeen(ctx context.Context, store Store) (seen Instant, err error) {
	err = store.View(ctx, func(r Reader) (err error) {
		seen, err = timeSeen(r)
		return err
	})
	return seen, err
}

func timeSeen(r Reader) (seen Instant, err error) {
	value, err := r.Setting(ClockSetting)
	if len(value) == 8 {
		seen = Instant(binary.BigEndian.Uint64(value))
	}
	return seen, err
}
