package sqlstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// feed is a store with a node that follows its feed.
type feed struct {
	*testing.T
	dsn   string
	store *sqlstore.Store
	keystore.Membership
	beats int64
}

func newFeed(t *testing.T) *feed {
	t.Helper()
	dsn := postgrestest.NewSchema(t)
	f := &feed{T: t, dsn: dsn, store: openPostgres(t, dsn)}
	f.Membership = f.join("node")
	return f
}

func (f *feed) join(node string) keystore.Membership {
	f.Helper()
	m, err := f.store.Join(f.Context(), node)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = m.Close() })
	return m
}

// beat confirms an epoch.
func (f *feed) beat(confirmed keystore.Epoch) keystore.FeedState {
	f.Helper()
	f.beats++
	state, err := f.Beat(f.Context(), keystore.NodeReport{Beat: f.beats, Confirmed: confirmed, Bound: 3 * time.Second})
	if err != nil {
		f.Fatal(err)
	}
	return state
}

// announce tells of a change to grants of these names, and returns its epoch.
func (f *feed) announce(names ...string) (a keystore.Announcement) {
	f.Helper()
	var digests []keystore.Digest
	for _, name := range names {
		digests = append(digests, digestOf(name))
	}
	err := f.store.Update(f.Context(), func(tx keystore.Tx) (err error) {
		a, err = tx.Announce(digests...)
		return err
	})
	if err != nil {
		f.Error(err)
	}
	return a
}

func (f *feed) exec(statement string) {
	f.Helper()
	conn, err := pgx.Connect(f.Context(), f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(f.Context(), statement); err != nil {
		f.Fatal(err)
	}
}

func (f *feed) wants(state keystore.FeedState, changed ...string) {
	f.Helper()
	if state.Lost || len(state.Changed) != len(changed) {
		f.Errorf("lost: %t, %d changes, want %v", state.Lost, len(state.Changed), changed)
		return
	}
	for _, name := range changed {
		if !slices.Contains(state.Changed, digestOf(name)) {
			f.Errorf("the change of %s is not told", name)
		}
	}
}

func TestTheFeedOfANewStoreBeginsAtOne(t *testing.T) {
	f := newFeed(t)
	if state := f.beat(0); state.Epoch != 1 || state.Lost || len(state.Changed) != 0 {
		t.Errorf("%+v", state)
	}
}

func TestTheFeedTellsWhatChangedAfterWhatWasConfirmed(t *testing.T) {
	f := newFeed(t)
	first := f.announce("a", "b", "a")
	f.wants(f.beat(first.Epoch))
	second := f.announce("c")
	third := f.announce("b")
	state := f.beat(first.Epoch)
	f.wants(state, "c", "b")
	if second.Epoch != first.Epoch+1 || third.Epoch != first.Epoch+2 || state.Epoch != third.Epoch {
		t.Errorf("epochs %d, %d, %d, told %d", first.Epoch, second.Epoch, third.Epoch, state.Epoch)
	}
	f.wants(f.beat(third.Epoch))
}

func TestAChangeThatFailsIsNotTold(t *testing.T) {
	f := newFeed(t)
	begin := f.announce("a").Epoch
	err := f.store.Update(t.Context(), func(tx keystore.Tx) error {
		if _, err := tx.Announce(digestOf("b")); err != nil {
			return err
		}
		return context.Canceled
	})
	if err == nil {
		t.Fatal("the update succeeded")
	}
	f.wants(f.beat(begin))
	if next := f.announce("c").Epoch; next != begin+1 {
		t.Errorf("epoch %d after %d", next, begin)
	}
}

// TestEpochsBecomeVisibleInOrder has many change beside each other, through two
// stores, while one reads: it must miss none.
func TestEpochsBecomeVisibleInOrder(t *testing.T) {
	f := newFeed(t)
	other := &feed{T: t, store: openPostgres(t, f.dsn)}
	position := f.announce("begin").Epoch
	const changers, changes = 8, 25
	var wg sync.WaitGroup
	for i := range changers {
		by := []*feed{f, other}[i%2]
		wg.Go(func() {
			for n := range changes {
				by.announce(fmt.Sprint(i, "-", n))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	told := map[keystore.Digest]bool{}
	for last := false; !last; {
		select {
		case <-done:
			last = true
		default:
		}
		state := f.beat(position)
		if state.Lost {
			t.Fatal("the feed lost its thread")
		}
		for _, d := range state.Changed {
			told[d] = true
		}
		position = state.Epoch
	}
	if len(told) != changers*changes {
		t.Errorf("%d of %d changes were told", len(told), changers*changes)
	}
}

func TestTheFeedSaysWhenItCantTell(t *testing.T) {
	tests := []struct {
		name string
		sql  string
	}{
		{"what was pruned", `DELETE FROM changes WHERE epoch = (SELECT epoch - 1 FROM epochs)`},
		{"what came last and was pruned", `DELETE FROM changes WHERE epoch = (SELECT epoch FROM epochs)`},
		{"how it got back to an earlier epoch", `UPDATE epochs SET epoch = 1; DELETE FROM changes`},
		{"so much", `INSERT INTO changes SELECT (SELECT epoch FROM epochs), sha256(n::text::bytea) FROM generate_series(1, 65536) n`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFeed(t)
			confirmed := f.announce("a").Epoch
			f.announce("b")
			f.announce("c")
			f.exec(test.sql)
			if state := f.beat(confirmed); !state.Lost {
				t.Errorf("epoch %d, %d changes, nothing lost", state.Epoch, len(state.Changed))
			}
		})
	}
}

// TestAnEpochNeverComesTwice is about a server that took over without the last change
// of the one before.
func TestAnEpochNeverComesTwice(t *testing.T) {
	f := newFeed(t)
	f.announce("a")
	lost := f.announce("lost").Epoch
	f.wants(f.beat(lost))
	f.exec(`DELETE FROM changes WHERE epoch = (SELECT epoch FROM epochs); UPDATE epochs SET epoch = epoch - 1, timeline = '0000000F'`)
	if a := f.announce("b"); a.Epoch <= lost {
		t.Errorf("epoch %d came before", a.Epoch)
	}
	if state := f.beat(lost); !state.Lost {
		t.Error("a node that knew more than the server does goes on as if nothing were")
	}
}

// TestANodeForgetsEverythingWhenAnotherServerTookOver is about a key that was made on
// the server before, and that the other one lacks: no change tells of it.
func TestANodeForgetsEverythingWhenAnotherServerTookOver(t *testing.T) {
	f := newFeed(t)
	epoch := f.announce("a").Epoch
	f.wants(f.beat(epoch))
	f.Membership = f.join("node")
	f.wants(f.beat(epoch)) // the same server
	f.store.TookOver()
	f.Membership = f.join("node")
	if state := f.beat(epoch); !state.Lost {
		t.Error("it goes on as if it were the same server")
	}
	f.wants(f.beat(epoch))
}

func TestChangesThatEveryNodeConfirmedArePruned(t *testing.T) {
	f := newFeed(t)
	slow := f.join("slow")
	begin := f.announce("a").Epoch
	end := f.announce("b").Epoch
	prune := func() {
		t.Helper()
		if err := f.store.Update(t.Context(), func(tx keystore.Tx) error { return tx.Prune(1) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slow.Beat(t.Context(), keystore.NodeReport{Beat: 1, Confirmed: begin, Bound: time.Second}); err != nil {
		t.Fatal(err)
	}
	f.beat(end)
	prune()
	f.wants(f.beat(begin), "b")
	if _, err := slow.Beat(t.Context(), keystore.NodeReport{Beat: 2, Confirmed: end, Bound: time.Second}); err != nil {
		t.Fatal(err)
	}
	f.beat(end)
	prune()
	if state := f.beat(begin); !state.Lost {
		t.Error("a change that all had confirmed is still there")
	}
}

func TestTheLongestBoundIsAnnounced(t *testing.T) {
	f := newFeed(t)
	f.beat(0)
	if _, err := f.join("patient").Beat(t.Context(), keystore.NodeReport{Beat: 1, Bound: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if a := f.announce("a"); a.Bound != time.Minute {
		t.Errorf("bound %v", a.Bound)
	}
}

func TestNodesSeeEachOtherUntilTheyLeave(t *testing.T) {
	f := newFeed(t)
	other := f.join("other")
	report := keystore.NodeReport{Beat: 7, Confirmed: 1, Bound: time.Second}
	if _, err := other.Beat(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	seen := func() (nodes []string) {
		for _, n := range f.beat(1).Nodes {
			if n.ID == "other" && n.NodeReport != report {
				t.Errorf("%+v", n)
			}
			nodes = append(nodes, n.ID)
		}
		slices.Sort(nodes)
		return nodes
	}
	if got := seen(); !slices.Equal(got, []string{"node", "other"}) {
		t.Fatalf("nodes %v", got)
	}
	alive := keystore.NodeState{ID: "other", NodeReport: keystore.NodeReport{Beat: 6}}
	if err := f.Forget(t.Context(), alive); err != nil || len(seen()) != 2 {
		t.Errorf("a node that beat since it was seen was forgotten: %v", err)
	}
	if err := other.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := seen(); !slices.Equal(got, []string{"node"}) {
		t.Errorf("nodes %v after one left", got)
	}
}

func TestNodesAreNotifiedOfChangesAndOfConfirmations(t *testing.T) {
	f := newFeed(t)
	other := f.join("other")
	wait := func() bool {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		changed, err := f.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	epoch := f.announce("a").Epoch
	if !wait() {
		t.Error("a change is not told as one")
	}
	if _, err := other.Beat(t.Context(), keystore.NodeReport{Beat: 1, Bound: time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Beat(t.Context(), keystore.NodeReport{Beat: 2, Confirmed: epoch, Bound: time.Second}); err != nil {
		t.Fatal(err)
	}
	if wait() {
		t.Error("a confirmation is told as a change")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.Wait(ctx); err != ctx.Err() || err == nil {
		t.Errorf("waiting for nothing answered %v", err)
	}
	f.wants(f.beat(epoch)) // the connection is as good as before
}
