// Package keyhistory records what clients asked about keys, what they were
// answered and when, and has a checker look for an order of each key's operations
// that explains every answer. There is none if a revoked key is accepted once, in
// a request that started after the revocation was answered.
package keyhistory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Kind is what an operation does to a key.
type Kind int

// The kinds. Judge asks for a verdict; all others are changes. A revocation and a
// stop are final, the others are not.
const (
	Judge Kind = iota
	Make
	Revoke
	Stop // an older key, by the first use of a newer one
	Deactivate
	Activate
	Misplace // into a package that the route does not take
	Replace  // into the one that it takes
)

var kindNames = [...]string{
	Judge: "judge", Make: "make", Revoke: "revoke", Stop: "stop",
	Deactivate: "deactivate", Activate: "activate", Misplace: "misplace", Replace: "replace",
}

func (k Kind) String() string { return kindNames[k] }

// History is what happened. Its methods may be called concurrently.
type History struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

type op struct {
	kind Kind
	key  string
}

// New begins a history.
func New() *History { return &History{start: time.Now()} }

// Now is the time in the history, for the call of an operation.
func (h *History) Now() time.Duration { return time.Since(h.start) }

// Record adds an operation on a key that began at call and ends now. The verdict
// counts for Judge only.
func (h *History) Record(client int, call time.Duration, kind Kind, key string, v keystore.Verdict) {
	ret := h.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{
		ClientId: client, Input: op{kind, key}, Call: int64(call), Output: v, Return: int64(ret),
	})
}

// Add adds an operation whose times are given.
func (h *History) Add(kind Kind, key string, call, ret time.Duration, v keystore.Verdict) {
	h.ops = append(h.ops, porcupine.Operation{Input: op{kind, key}, Call: int64(call), Output: v, Return: int64(ret)})
}

// Len is how many operations there are.
func (h *History) Len() int { return len(h.ops) }

// Unexplained tells the story of a key whose answers no order of operations
// explains, empty if there is none.
func (h *History) Unexplained() string {
	for _, part := range byKey(h.ops) {
		if porcupine.CheckOperationsTimeout(model, part, time.Minute) != porcupine.Ok {
			return story(part)
		}
	}
	return ""
}

// story is the operations in the order in which they began.
func story(part []porcupine.Operation) string {
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var out strings.Builder
	for _, o := range part {
		did := o.Input.(op)
		fmt.Fprintf(&out, "%12v to %12v, client %2d: %s", time.Duration(o.Call), time.Duration(o.Return), o.ClientId, did.kind)
		if did.kind == Judge {
			fmt.Fprintf(&out, " %v", o.Output)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// Races is how many changes met at least one verdict on the same key: one that
// began before the change ended, and ended after it began.
func (h *History) Races() (races int) {
	for _, part := range byKey(h.ops) {
		for _, change := range part {
			if change.Input.(op).kind == Judge {
				continue
			}
			if slices.ContainsFunc(part, func(o porcupine.Operation) bool {
				return o.Input.(op).kind == Judge && o.Call < change.Return && o.Return > change.Call
			}) {
				races++
			}
		}
	}
	return races
}

// state is what a key's history amounts to.
type state struct{ made, revoked, stopped, inactive, misplaced bool }

// model says what a key may answer: a verdict tells how things stand at one moment
// between its call and its return.
var model = porcupine.Model{
	Partition: byKey,
	Init:      func() any { return state{} },
	Step: func(before, input, output any) (bool, any) {
		s := before.(state)
		switch input.(op).kind {
		case Judge:
			return output.(keystore.Verdict) == s.verdict(), s
		case Make:
			s.made = true
		case Revoke:
			s.revoked = true
		case Stop:
			s.stopped = true
		case Deactivate, Activate:
			s.inactive = input.(op).kind == Deactivate
		case Misplace, Replace:
			s.misplaced = input.(op).kind == Misplace
		}
		return true, s
	},
}

func (s state) verdict() keystore.Verdict {
	switch {
	case !s.made:
		return keystore.InvalidKey
	case s.revoked:
		return keystore.RevokedKey
	case s.stopped:
		return keystore.ExpiredKey
	case s.inactive:
		return keystore.Inactive
	case s.misplaced:
		return keystore.WrongPackage
	}
	return keystore.OK
}

func byKey(ops []porcupine.Operation) [][]porcupine.Operation {
	keys := map[string][]porcupine.Operation{}
	for _, o := range ops {
		key := o.Input.(op).key
		keys[key] = append(keys[key], o)
	}
	var parts [][]porcupine.Operation
	for _, part := range keys {
		parts = append(parts, part)
	}
	return parts
}
