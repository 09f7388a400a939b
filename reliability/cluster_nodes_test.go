//go:build reliability

package reliability

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestLostNotificationsAreHarmless: what nobody is told of is read at the next beat.
func TestLostNotificationsAreHarmless(t *testing.T) {
	c := newCluster(t)
	c.joinAll(3, nil)
	if !c.notified(c.nodes[0]) {
		t.Fatal("a change is not notified where nothing is lost")
	}
	c.deafen(true)
	if c.notified(c.nodes[0]) {
		t.Fatal("the notification is not lost: nothing is tested")
	}
	for i := range size(5, 50) {
		key := c.nodes[0].issue()
		for _, n := range c.nodes {
			n.remember(key.Text)
		}
		if i%2 == 0 {
			c.terminate(c.nodes[i%3])
		}
		if _, err := c.nodes[(i+1)%3].RevokeKey(t.Context(), key.Key.ID, ""); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if v := n.try(key.Text); v != keystore.RevokedKey && v != keystore.StoreUnavailable {
				t.Errorf("%s says %v when the revocation is answered", n.name, v)
			}
			n.wantSoon(5*time.Second, keystore.RevokedKey, key.Text)
		}
	}
}

// notified reports whether a change is notified to those who listen.
func (c *cluster) notified(n *node) bool {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), c.dsn)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(c.t.Context(), `LISTEN api_keys`); err != nil {
		c.t.Fatal(err)
	}
	key := n.issue()
	if _, err := n.RevokeKey(c.t.Context(), key.Key.ID, ""); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
	defer cancel()
	_, err = conn.WaitForNotification(ctx)
	return err == nil
}

// TestAKeyWorksOnAllNodesWithinASecond also where it was refused until then, and is
// asked for all the time.
func TestAKeyWorksOnAllNodesWithinASecond(t *testing.T) {
	c := newCluster(t)
	c.joinAll(3, nil)
	c.deafen(true) // nothing depends on them
	account, err := c.nodes[0].CreateAccount(t.Context(), keystore.Account{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range size(5, 50) {
		text := fmt.Sprintf("a-key-of-another-house-%04d", i)
		record, err := c.nodes[0].GrantRecord(*account, keystore.Credential{}, keystore.Key{}, keystore.Material{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		var asking sync.WaitGroup
		for _, n := range c.nodes {
			n.want(keystore.InvalidKey, text)
			asking.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-time.After(5 * time.Millisecond):
						n.try(text)
					}
				}
			})
		}
		if _, _, err := c.nodes[i%3].Import(t.Context(), []keystore.Record{record}); err != nil {
			t.Fatal(err)
		}
		c.nodes[i%3].want(keystore.OK, text)
		for _, n := range c.nodes {
			n.wantSoon(time.Second, keystore.OK, text)
		}
		close(over)
		asking.Wait()
	}
}

// TestTheFirstUseOfAKeyStopsTheOldOne on its node at once and elsewhere within the
// lease. The request does not wait for the others: one that is cut off goes by its
// memory still when it is answered.
func TestTheFirstUseOfAKeyStopsTheOldOne(t *testing.T) {
	c := newCluster(t)
	c.joinAll(3, nil)
	here, healthy, away := c.nodes[0], c.nodes[1], c.nodes[2]
	old := here.issue()
	next, err := here.Rotate(t.Context(), keystore.Operator(), keystore.Rotation{
		CredentialID: old.Credential.ID, Overlap: keystore.Overlap{UntilFirstUse: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.remember(old.Text)
	}
	away.net.BlackHole()
	here.want(keystore.OK, next.Text)
	here.want(keystore.ExpiredKey, old.Text)
	away.want(keystore.OK, old.Text)
	healthy.wantSoon(clusterLease, keystore.ExpiredKey, old.Text)
	away.wantSoon(clusterLease, keystore.StoreUnavailable, old.Text)
	away.net.Heal()
	away.wantSoon(5*time.Second, keystore.ExpiredKey, old.Text)
	for _, n := range c.nodes {
		n.want(keystore.OK, next.Text)
	}
}

// TestAMailIsSentByOneWorker has two nodes send what both put into the outbox.
func TestAMailIsSentByOneWorker(t *testing.T) {
	c := newCluster(t)
	c.joinAll(2, nil)
	server := func() { time.Sleep(time.Millisecond) }
	for address, times := range c.sendMails(size(30, 300), time.Minute, server) {
		if times != 1 {
			t.Errorf("the mail to %s was sent %d times", address, times)
		}
	}
}

// TestAMailIsSentByOneWorkerControl has workers take a mail for no time at all, and a
// mail server that is slow enough for both to have it.
func TestAMailIsSentByOneWorkerControl(t *testing.T) {
	c := newCluster(t)
	c.joinAll(2, nil)
	var holders atomic.Int32
	both := make(chan struct{})
	server := func() {
		if holders.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(10 * time.Second):
		}
	}
	if sent := c.sendMails(1, 0, server); slices.Max(slices.Collect(maps.Values(sent))) < 2 {
		t.Errorf("the mail was sent once: %v", sent)
	}
}

// sendMails has keys be asked for by mail on both nodes, and a worker on each send
// them, for which it calls server. It returns how often each was sent.
func (c *cluster) sendMails(mails int, lease time.Duration, server func()) map[string]int {
	c.t.Helper()
	sent := map[string]int{}
	for i := range mails {
		n := c.nodes[i%len(c.nodes)]
		account, err := n.CreateAccount(c.t.Context(), keystore.Account{Email: fmt.Sprintf("%d@example.org", i)})
		if err == nil {
			_, err = n.RequestMail(c.t.Context(), keystore.MailRequest{Address: account.Email, Every: time.Hour})
		}
		if err != nil {
			c.t.Fatal(err)
		}
		sent[account.Email] = 0
	}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for _, n := range c.nodes {
		workers.Go(func() {
			for {
				m, err := n.BeginMail(context.Background(), lease)
				if err != nil {
					if !errors.Is(err, keystore.ErrNotFound) {
						c.t.Error(err)
					}
					return
				}
				mu.Lock()
				sent[m.Account.Email]++
				mu.Unlock()
				server()
				if _, err := n.EndMail(context.Background(), m, keystore.MailSent, 0); err != nil && !errors.Is(err, keystore.ErrNotFound) {
					c.t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	return sent
}
