// Command scale measures a store of many keys. It starts Caddy with an empty one,
// brings the keys in with POST /api_keys/import while others are issued, starts
// Caddy anew, and asks for keys at random, with the store in the system's cache and
// without.
//
//	go run ./bench/scale [-keys 1000000] [-per 1] [-dir <where there is room>]
//
// A key takes about 1 kB of disk, and as much again while it is imported.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/manykeys"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

var (
	keys = flag.Int("keys", 1_000_000, "how many keys")
	per  = flag.Int("per", 1, "how many keys a credential has; ten credentials share an account")
	dir  = flag.String("dir", "", "where to make the store; default: a temporary directory")
	made = flag.String("store", "", "measure this store, of an earlier run with that many keys, and import nothing")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// bench is a run.
type bench struct {
	dir   string
	caddy string
	store string
}

func run() error {
	temp, err := os.MkdirTemp(*dir, "bench-scale")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	b := &bench{temp, filepath.Join(temp, "caddy"), filepath.Join(temp, "store", "keys.db")}
	build := exec.Command("go", "build", "-o", b.caddy, "./cmd/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building ./cmd/caddy (run this from the repository's root): %w\n%s", err, out)
	}
	steps := []func() error{b.importKeys, b.start, b.lookUp}
	if *made != "" {
		b.store, steps = *made, steps[1:]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// importKeys fills the store, and issues keys beside it.
func (b *bench) importKeys() error {
	g, err := b.serve()
	if err != nil {
		return err
	}
	defer g.end()
	alone, err := g.issueFor(func() error { time.Sleep(3 * time.Second); return nil })
	if err != nil {
		return err
	}
	var took time.Duration
	before, err := g.cpu()
	if err != nil {
		return err
	}
	beside, err := g.issueFor(func() error {
		begin := time.Now()
		defer func() { took = time.Since(begin) }()
		return g.importLines(*keys)
	})
	if err != nil {
		return err
	}
	now, peak, err := g.memory()
	if err != nil {
		return err
	}
	after, err := g.cpu()
	if err != nil {
		return err
	}
	credentials := (*keys + *per - 1) / *per
	accounts := (credentials + 9) / 10
	fmt.Printf("import of %d keys, %d credentials, %d accounts: %v, %.0f keys/s, %.0f lines/s\n",
		*keys, credentials, accounts, took.Round(time.Millisecond),
		float64(*keys)/took.Seconds(), float64(*keys+credentials+accounts)/took.Seconds())
	fmt.Printf("CPU of Caddy meanwhile: %v a key\n", ((after - before) / time.Duration(*keys)).Round(100*time.Nanosecond))
	fmt.Printf("issue: alone p50 %v p99 %v, beside the import p50 %v p99 %v max %v (%d)\n", alone.at(0.5), alone.at(0.99),
		beside.at(0.5), beside.at(0.99), beside.at(1), len(beside))
	fmt.Printf("memory of Caddy after the import: %d MiB, at most %d MiB\n", now>>20, peak>>20)
	return g.end()
}

// start measures a start, from the process to the first verdict.
func (b *bench) start() error {
	info, err := os.Stat(b.store)
	if err != nil {
		return err
	}
	fmt.Printf("size of the store: %d MiB, %d bytes a key\n", info.Size()>>20, info.Size()/int64(*keys))
	for _, cached := range []bool{true, false} {
		if !cached {
			if err := dropCache(b.store); err != nil {
				fmt.Println("the system's cache can't be dropped:", err)
				return nil
			}
		}
		begin := time.Now()
		g, err := b.serve()
		if err != nil {
			return err
		}
		if err := g.waitFor(manykeys.Text(rand.IntN(*keys))); err != nil {
			return err
		}
		took := time.Since(begin)
		now, _, err := g.memory()
		if err != nil {
			return err
		}
		fmt.Printf("start to first verdict, store cached %t: %v, memory %d MiB\n", cached, took.Round(time.Millisecond), now>>20)
		if err := g.end(); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads a file to its end.
func readAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// lookUp measures verdicts on keys at random, nearly none of which is in the
// gateway's own cache.
func (b *bench) lookUp() error {
	ctx := context.Background()
	store, err := sqlstore.OpenSQLite(ctx, b.store)
	if err != nil {
		return err
	}
	vault, err := keystore.OpenVault(ctx, store, keystore.MinCacheSize, func(problem string, err error) { log.Print(problem, err) })
	if err != nil {
		return err
	}
	defer vault.Close()
	keyring, err := keystore.NewKeyring(ctx, vault, keystore.Config{})
	if err != nil {
		return err
	}
	ask := func(n int) (sample, error) {
		return measure(n, func() error {
			if _, v, err := keyring.Verify(ctx, manykeys.Text(rand.IntN(*keys))); v != keystore.OK {
				return fmt.Errorf("a key is %v: %w", v, err)
			}
			return nil
		})
	}
	if err := readAll(b.store); err != nil { // warms the system's cache
		return err
	}
	warm, err := ask(100_000)
	if err != nil {
		return err
	}
	fmt.Printf("look-up, store in the system's cache: p50 %v p99 %v\n", warm.at(0.5), warm.at(0.99))
	if err := dropCache(b.store); err != nil {
		fmt.Println("the system's cache can't be dropped:", err)
		return nil
	}
	cold, err := ask(2_000)
	if err != nil {
		return err
	}
	fmt.Printf("look-up, nothing cached: p50 %v p99 %v\n", cold.at(0.5), cold.at(0.99))
	return nil
}
