package sqlstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

// TestDocumentedRights holds the grants of docs/clusters.md against every statement: a
// role that has them may run all of them, and needs each.
func TestDocumentedRights(t *testing.T) {
	conn := connectToStore(t)
	role := "rights_" + strings.ToLower(rand.Text())
	run(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() { run(t, conn, "RESET ROLE; DROP OWNED BY "+role+"; DROP ROLE "+role) })
	run(t, conn, "DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO "+role+"', current_schema()); END $$")
	statements := prepareAll(t, conn)

	rights := documentedRights(t)
	for _, right := range rights {
		run(t, conn, right.grant+role)
	}
	if err := explain(t, conn, role, statements); err != nil {
		t.Errorf("the documented rights are too few: %v", err)
	}
	for _, right := range rights {
		run(t, conn, right.revoke+role)
		if explain(t, conn, role, statements) == nil {
			t.Errorf("the right is not needed: %s", right.grant)
		}
		run(t, conn, right.grant+role)
	}
}

func connectToStore(t *testing.T) *pgx.Conn {
	t.Helper()
	dsn := postgrestest.NewSchema(t)
	store, err := OpenPostgres(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, text string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(context.Background(), text).ReadAll(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// right is one right of one table.
type right struct{ grant, revoke string }

// documentedRights takes the grants of the document apart.
func documentedRights(t *testing.T) (rights []right) {
	t.Helper()
	text, err := os.ReadFile("../../docs/clusters.md")
	if err != nil {
		t.Fatal(err)
	}
	grants := regexp.MustCompile(`(?m)^GRANT ([A-Z, ]+) ON ([a-z_, ]+) TO apikeys;$`).FindAllStringSubmatch(string(text), -1)
	for _, m := range grants {
		for kind := range strings.SplitSeq(m[1], ", ") {
			for table := range strings.SplitSeq(m[2], ", ") {
				on := kind + " ON " + table
				rights = append(rights, right{"GRANT " + on + " TO ", "REVOKE " + on + " FROM "})
			}
		}
	}
	if len(rights) < 30 {
		t.Fatalf("docs/clusters.md has %d grants only", len(rights))
	}
	return rights
}

// prepareAll prepares all that a gateway runs, and returns how to explain each: that
// asks for the same rights as to run it.
func prepareAll(t *testing.T, conn *pgx.Conn) (explains []string) {
	t.Helper()
	all := append(slices.Clone(texts[:savepoint]),
		lockEpoch, announceChange, pruneChanges, keepBeat, firstBeat, currentEpoch, changesAfter, allNodes, removeNode)
	for _, table := range backedUp {
		all = append(all, "SELECT * FROM "+table)
	}
	for i, text := range all {
		name := fmt.Sprintf("s%d", i)
		described, err := conn.Prepare(t.Context(), name, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		args := ""
		if n := len(described.ParamOIDs); n > 0 {
			args = "(" + strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ") + ")"
		}
		explains = append(explains, "EXPLAIN EXECUTE "+name+args)
	}
	return explains
}

// explain returns the first error that the role gets.
func explain(t *testing.T, conn *pgx.Conn, role string, explains []string) error {
	t.Helper()
	run(t, conn, "SET ROLE "+role)
	defer run(t, conn, "RESET ROLE")
	for _, text := range explains {
		if _, err := conn.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}
