//go:build reliability

package reliability

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// This file kills imports in the middle, and goes on with them.

const (
	importChild     = "import"
	importHasty     = "import that answers too early"
	importStore     = "RELIABILITY_IMPORT_STORE"
	importBatchSize = 300 // records, three of which are one key
	importBatches   = 40
)

func init() {
	children[importChild] = func() { importAll(false) }
	children[importHasty] = func() { importAll(true) }
}

// importText is the i-th key.
func importText(i int) string { return fmt.Sprint("in-use-elsewhere-", i) }

// importRecords are those of a batch.
func importRecords(kr *keystore.Keyring, batch int) (records []keystore.Record, err error) {
	for n := range importBatchSize / 3 {
		i := batch*importBatchSize/3 + n
		account := fmt.Sprint("customer-", i)
		credential := fmt.Sprintf("019a0000-0000-7000-8000-%012x", i)
		for _, make := range []func() (keystore.Record, error){
			func() (keystore.Record, error) {
				return kr.AccountRecord(keystore.Account{ID: account, Active: true})
			},
			func() (keystore.Record, error) {
				return kr.CredentialRecord(keystore.Credential{ID: credential, AccountID: account, Active: true})
			},
			func() (keystore.Record, error) {
				return kr.KeyRecord(keystore.Key{CredentialID: credential}, keystore.Material{Text: importText(i)})
			},
		} {
			r, err := make()
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
	}
	return records, nil
}

// openKeyring opens a store; the vault is for closing it.
func openKeyring(path string) (*keystore.Keyring, *keystore.Vault, error) {
	ctx := context.Background()
	store, err := sqlstore.OpenSQLite(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	vault, err := keystore.OpenVault(ctx, store, keystore.MinCacheSize, func(string, error) {})
	if err != nil {
		return nil, nil, err
	}
	kr, err := keystore.NewKeyring(ctx, vault, keystore.Config{})
	return kr, vault, err
}

// importAll is a child: it writes a line for each batch that is stored. The hasty
// one writes it before.
func importAll(hasty bool) {
	kr, vault, err := openKeyring(os.Getenv(importStore))
	if err != nil {
		panic(err)
	}
	defer vault.Close()
	for batch := range importBatches {
		records, err := importRecords(kr, batch)
		if err != nil {
			panic(err)
		}
		if hasty {
			fmt.Println(batch)
		}
		if _, _, err := kr.Import(context.Background(), records); err != nil {
			panic(err)
		}
		if !hasty {
			fmt.Println(batch)
		}
	}
}

// killImport runs a child and kills it some time after a batch was answered. It
// returns how many were.
func killImport(t *testing.T, child, path string) (answered int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+child, importStore+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at := 1 + rand.IntN(importBatches/4)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if answered++; answered == at {
			time.Sleep(rand.N(4 * time.Millisecond)) // a moment that nobody chose
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	return answered
}

// importedBatches counts the batches that are there. It complains of what is there
// by half, and of what is there behind what is not.
func importedBatches(t *testing.T, kr *keystore.Keyring) (whole int, complaints []string) {
	t.Helper()
	ended := false
	for batch := range importBatches {
		n := 0
		for i := range importBatchSize / 3 {
			_, v, err := kr.Verify(t.Context(), importText(batch*importBatchSize/3+i))
			if err != nil {
				t.Fatal(err)
			}
			if v == keystore.OK {
				n++
			}
		}
		switch {
		case n == importBatchSize/3 && !ended:
			whole++
		case n == 0:
			ended = true
		default:
			complaints = append(complaints, fmt.Sprintf("of batch %d there are %d keys", batch, n))
		}
	}
	return whole, complaints
}

// importRounds kills imports of a kind, and returns how many batches were answered
// and not there.
func importRounds(t *testing.T, child string, rounds int) (lost int) {
	for range rounds {
		path := filepath.Join(t.TempDir(), "keys", "keys.db")
		answered := killImport(t, child, path)
		kr, vault, err := openKeyring(path)
		if err != nil {
			t.Fatal(err)
		}
		there, complaints := importedBatches(t, kr)
		for _, c := range complaints {
			t.Error(c)
		}
		if there < answered {
			lost += answered - there
		}
		resumeImport(t, kr, there)
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	}
	return lost
}

// resumeImport imports everything again, of which some is there.
func resumeImport(t *testing.T, kr *keystore.Keyring, there int) {
	t.Helper()
	var stored keystore.Imported
	for batch := range importBatches {
		records, err := importRecords(kr, batch)
		if err != nil {
			t.Fatal(err)
		}
		made, _, err := kr.Import(t.Context(), records)
		if err != nil {
			t.Fatal(err)
		}
		stored.Add(made)
	}
	if want := (importBatches - there) * importBatchSize / 3; stored.Keys != want || stored.Accounts != want {
		t.Errorf("the repetition made %+v, want %d of each", stored, want)
	}
	if whole, complaints := importedBatches(t, kr); whole != importBatches {
		t.Errorf("%d of %d batches are there in the end: %v", whole, importBatches, complaints)
	}
}

func TestAKilledImportLeavesWholeBatchesAndCanBeRepeated(t *testing.T) {
	rounds := size(5, 100)
	if lost := importRounds(t, importChild, rounds); lost > 0 {
		t.Errorf("%d batches were answered and are not there", lost)
	}
	t.Logf("%d imports were killed", rounds)
}

// The control: one that answers before it stores is found out.
func TestAnImportThatAnswersTooEarlyIsFoundOut(t *testing.T) {
	for range 5 {
		if importRounds(t, importHasty, 2) > 0 {
			return
		}
	}
	t.Error("nothing that was answered too early was missing after a kill")
}

// TestASlowImportOutlastsTheTimeLimitOfTheAdminEndpoint: Caddy gives a request to
// its admin endpoint ten seconds, and a large import takes longer. The control is a
// call that gets no more.
func TestASlowImportOutlastsTheTimeLimitOfTheAdminEndpoint(t *testing.T) {
	g := livetest.Start(t, "", "")
	const pause = 11 * time.Second
	post := func(path, contentType, body string) (int, string, error) {
		r, w := io.Pipe()
		go func() {
			half := len(body) / 2
			_, _ = io.WriteString(w, body[:half])
			time.Sleep(pause) // the time limit itself is what is waited for
			_, _ = io.WriteString(w, body[half:])
			w.Close()
		}()
		resp, err := http.Post("http://"+g.Admin+"/api_keys"+path, contentType, r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(answer), err
	}
	control := make(chan bool, 1)
	go func() {
		status, _, err := post("/accounts", "application/json", `{"id":"slow"}`)
		control <- err == nil && status == http.StatusCreated
	}()
	line := `{"grant":{"account_id":"acme","secret":"imported-slowly"}}` + "\n"
	status, answer, err := post("/import", "application/x-ndjson", strings.Repeat(line, 4))
	if err != nil || status != http.StatusOK || !strings.Contains(answer, `"keys":1`) {
		t.Errorf("%d %s %v", status, answer, err)
	}
	if <-control {
		t.Error("the admin endpoint has no time limit: this test shows nothing")
	}
	if a := g.Do(1, "GET", "/", "", "X-Api-Key", "imported-slowly"); a.StatusCode != http.StatusOK {
		t.Errorf("the imported key is answered with %d", a.StatusCode)
	}
}
