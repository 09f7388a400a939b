//go:build reliability

package reliability

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// This file is a cluster: nodes that share a database, each over a network of its own.
// They are in one process, so that one clock tells what came first.

// clusterLease is that of the nodes. Shorter ones would be lost on a busy machine.
const clusterLease = 2 * time.Second

// cluster is a database that nodes share.
type cluster struct {
	t         *testing.T
	addr, dsn string
	// operator is connected past the nodes.
	operator *pgx.Conn
	nodes    []*node
}

// node is a keyring that reaches the database over a network.
type node struct {
	*keystore.Keyring
	t     *testing.T
	vault *keystore.Vault
	net   *badnet.Proxy
	name  string
}

// newCluster makes an empty one. Its notifications can be lost, see deafen: they are
// sent by a function of its schema, which stands before the server's own.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	dsn, err := url.Parse(postgrestest.NewSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	query := dsn.Query()
	query.Set("options", query.Get("options")+",pg_catalog")
	dsn.RawQuery = query.Encode()
	c := &cluster{t: t, addr: dsn.Host, dsn: dsn.String()}
	operator, err := pgx.Connect(t.Context(), c.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = operator.Close(context.Background()) })
	c.operator = operator
	c.run(`CREATE TABLE deaf ()`,
		`CREATE FUNCTION pg_notify(text, text) RETURNS void LANGUAGE sql AS
			'SELECT pg_catalog.pg_notify($1, $2) WHERE NOT EXISTS (SELECT FROM deaf)'`)
	return c
}

func (c *cluster) run(statements ...string) {
	c.t.Helper()
	for _, s := range statements {
		if _, err := c.operator.Exec(c.t.Context(), s); err != nil {
			c.t.Fatalf("%v in %s", err, s)
		}
	}
}

// deafen has the server lose all notifications, or not.
func (c *cluster) deafen(on bool) {
	c.t.Helper()
	c.run(`DELETE FROM deaf`)
	if on {
		c.run(`INSERT INTO deaf DEFAULT VALUES`)
	}
}

// terminate ends the connections of a node at the server.
func (c *cluster) terminate(n *node) {
	c.t.Helper()
	c.run(fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '%s'`, n.name))
}

// join adds a node. A lie, if there is one, stands between it and its store.
func (c *cluster) join(lie func(keystore.Membership) keystore.Membership) *node {
	c.t.Helper()
	n := &node{t: c.t, net: badnet.Listen(c.t, c.addr), name: fmt.Sprint("node", len(c.nodes))}
	dsn := strings.Replace(c.dsn, c.addr, n.net.Addr(), 1) + "&application_name=" + n.name
	var store keystore.Store
	opened, err := sqlstore.OpenPostgres(c.t.Context(), dsn)
	if err != nil {
		c.t.Fatal(err)
	}
	if store = opened; lie != nil {
		store = lying{opened, lie}
	}
	n.vault, err = keystore.OpenVault(c.t.Context(), store, keystore.DefaultCacheSize, func(string, error) {},
		keystore.WithLease(clusterLease, 0))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		n.net.Heal()
		if err := n.vault.Close(); err != nil {
			c.t.Error(err)
		}
	})
	if n.Keyring, err = keystore.NewKeyring(c.t.Context(), n.vault, keystore.Config{}); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	return n
}

// joinAll adds nodes that have a lease.
func (c *cluster) joinAll(count int, lie func(keystore.Membership) keystore.Membership) {
	c.t.Helper()
	for range count {
		c.join(lie)
	}
	c.wantLeases()
}

// wantLeases waits until all nodes may go by their memory.
func (c *cluster) wantLeases() {
	c.t.Helper()
	for _, n := range c.nodes {
		eventually(c.t, 10*time.Second, n.name+" has a lease", n.leased)
	}
}

func (n *node) leased() bool {
	info, shared := n.vault.Cluster()
	return shared && info.Leased
}

// try presents a key as a request does.
func (n *node) try(text string) keystore.Verdict {
	_, v, _ := n.Accept(context.Background(), text, keystore.Request{Requirement: &keystore.Requirement{}})
	return v
}

// issue makes a key, in an account of its own. It tries again where it has just lost
// its connections.
func (n *node) issue() (made *keystore.Issued) {
	n.t.Helper()
	eventually(n.t, 5*time.Second, n.name+" makes a key", func() bool {
		account, err := n.CreateAccount(context.Background(), keystore.Account{})
		if err == nil {
			made, err = n.Issue(context.Background(), keystore.Operator(), keystore.Credential{AccountID: account.ID})
		}
		return err == nil
	})
	return made
}

// remember has memory hold the key.
func (n *node) remember(text string) {
	n.t.Helper()
	eventually(n.t, 5*time.Second, n.name+" has the key in memory", func() bool {
		before := n.vault.Misses()
		n.want(keystore.OK, text)
		return n.vault.Misses() == before
	})
}

func (n *node) want(want keystore.Verdict, text string) {
	n.t.Helper()
	if got := n.try(text); got != want {
		n.t.Errorf("%s says %v, want %v", n.name, got, want)
	}
}

// wantSoon waits until the node says so.
func (n *node) wantSoon(within time.Duration, want keystore.Verdict, text string) {
	n.t.Helper()
	eventually(n.t, within, fmt.Sprintf("%s says %v", n.name, want), func() bool { return n.try(text) == want })
}

// eventually waits until something is so.
func eventually(t *testing.T, within time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("within %v it is not so that %s", within, what)
		}
	}
}

// lying is a store whose node does not keep to what it says of itself.
type lying struct {
	*sqlstore.Store
	lie func(keystore.Membership) keystore.Membership
}

func (l lying) Join(ctx context.Context, node string) (keystore.Membership, error) {
	m, err := l.Store.Join(ctx, node)
	if err != nil {
		return nil, err
	}
	return l.lie(m), nil
}

// overstayed goes by memory for longer than it says.
type overstayed struct{ keystore.Membership }

func (m overstayed) Beat(ctx context.Context, report keystore.NodeReport) (keystore.FeedState, error) {
	report.Bound /= 8
	return m.Membership.Beat(ctx, report)
}

// careless confirms changes by which it does not act.
type careless struct{ keystore.Membership }

func (m careless) Beat(ctx context.Context, report keystore.NodeReport) (keystore.FeedState, error) {
	feed, err := m.Membership.Beat(ctx, report)
	feed.Changed, feed.Lost = nil, false
	return feed, err
}
