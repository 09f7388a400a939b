//go:build reliability && linux

package reliability

import (
	"math/rand/v2"
	"testing"
	"time"
)

var (
	kills = size(40, 500)
	// killsOfOne is how many processes one store sees.
	killsOfOne = 10
)

// TestNothingAcknowledgedIsLostByKill kills writers at random moments, those of
// opening and recovering the store among them, and each time holds what is left
// against everything that was acknowledged. The next process gets the files as
// they are.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	acknowledged, checks := 0, 0
	for checks < kills {
		path := newStorePath(t)
		l := newLedger()
		for range killsOfOne {
			l.note(writeAndDie(t, path, "")...)
			l.check(t, copyStore(t, path)).report(t, "after a kill")
			checks++
			if t.Failed() {
				return
			}
		}
		l.check(t, path).report(t, "after the last kill")
		acknowledged += l.entries
	}
	t.Logf("%d kills, %d acknowledgements, none missing", checks, acknowledged)
}

// writeAndDie runs a writer and kills it, and returns what it wrote before.
func writeAndDie(t *testing.T, path, variant string) []event {
	t.Helper()
	w := startWriter(t, path, variant)
	if rand.N(4) > 0 {
		w.readFor(eventOpened)
	}
	w.readUntil(time.Now().Add(rand.N(150 * time.Millisecond)))
	return w.killed()
}

// TestNothingAcknowledgedIsLostByKillControl kills writers that break the promise.
func TestNothingAcknowledgedIsLostByKillControl(t *testing.T) {
	for _, c := range []struct{ variant, finds string }{
		{"early", findMissing},
		{"early", findAlive},
		{"torn", findHalf},
	} {
		t.Run(c.variant+" is "+c.finds, func(t *testing.T) {
			for range 40 {
				path := newStorePath(t)
				w := startWriter(t, path, c.variant)
				w.readFor(eventRevoked)
				w.readUntil(time.Now().Add(rand.N(50 * time.Millisecond)))
				l := newLedger()
				l.note(w.killed()...)
				if len(l.check(t, path)[c.finds]) > 0 {
					return
				}
			}
			t.Error("nothing was found in 40 stores")
		})
	}
}
