//go:build reliability && linux

package reliability

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var (
	cuts = size(12, 100)
	// cutsOfOne is how many cuts one disk sees.
	cutsOfOne = 4
)

const diskSize = 32 << 20

// TestNothingAcknowledgedIsLostByPowerCut stops a writer at random moments and
// takes its disk as it is: without what the system has not written to it yet.
func TestNothingAcknowledgedIsLostByPowerCut(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	acknowledged, done := 0, 0
	for done < cuts && !t.Failed() {
		t.Run("disk", func(t *testing.T) {
			dir := inMemory(t, "256m")
			d := newDisk(t, dir, diskSize)
			w := startWriter(t, d.store(), "")
			if rand.N(4) > 0 { // else the first cut meets a store that is being made
				w.readFor(eventOpened)
			}
			var l *ledger
			for range min(cutsOfOne, cuts-done) {
				w.readUntil(time.Now().Add(rand.N(100 * time.Millisecond)))
				l = newLedger()
				cutPower(t, d, w, l).report(t, "after a power cut")
				done++
			}
			acknowledged += l.entries
		})
	}
	t.Logf("%d power cuts, %d acknowledgements, none missing", done, acknowledged)
}

// cutPower holds the disk of a running writer, as it would come up now, against
// all that the writer was told.
func cutPower(t *testing.T, d *disk, w *process, l *ledger) (found findings) {
	t.Helper()
	w.stop()
	t.Run("cut", func(t *testing.T) {
		l.note(w.events...)
		dir := filepath.Join(filepath.Dir(d.image), "cut")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		found = l.check(t, d.afterPowerCut(t, dir).store())
	})
	w.goOn()
	return found
}

// TestNothingAcknowledgedIsLostByPowerCutControl does so with a writer that does
// not sync.
func TestNothingAcknowledgedIsLostByPowerCutControl(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	d := newDisk(t, inMemory(t, "256m"), diskSize)
	w := startWriter(t, d.store(), "unsynced")
	w.readFor(eventRevoked)
	found := cutPower(t, d, w, newLedger())
	if len(found[findMissing]) == 0 {
		t.Errorf("nothing is missing of %d acknowledgements; found: %v", len(w.events), found)
	}
	t.Logf("%d of what was acknowledged is missing", len(found[findMissing]))
}
