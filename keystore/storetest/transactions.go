package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var transactionRules = []rule{
	{"an update that fails changes nothing, and its error is returned", func(s *suite) {
		s.family("a")
		s.refuses(errTest, func(tx keystore.Tx) error {
			if err := changeAll(tx); err != nil {
				return err
			}
			return fmt.Errorf("wrapped: %w", errTest)
		})
		s.unchanged()
	}},
	{"an update that panics changes nothing, and panics in its caller", func(s *suite) {
		s.family("a")
		func() {
			defer func() {
				if got := recover(); got != errTest {
					s.Errorf("recovered %v, want %v", got, errTest)
				}
			}()
			_ = s.Update(s.ctx, func(tx keystore.Tx) error {
				if err := changeAll(tx); err != nil {
					s.Error(err)
				}
				panic(errTest)
			})
			s.Error("Update returned")
		}()
		s.unchanged()
	}},
	{"an update whose goroutine ends changes nothing", func(s *suite) {
		s.family("a")
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = s.Update(s.ctx, func(tx keystore.Tx) error {
				if err := changeAll(tx); err != nil {
					s.Error(err)
				}
				runtime.Goexit()
				return nil
			})
		})
		wg.Wait()
		s.unchanged()
	}},
	{"a view that panics panics in its caller", func(s *suite) {
		s.family("a")
		func() {
			defer func() {
				if got := recover(); got != errTest {
					s.Errorf("recovered %v, want %v", got, errTest)
				}
			}()
			_ = s.View(s.ctx, func(keystore.Reader) error { panic(errTest) })
		}()
		s.account("a")
	}},
	{"a view returns the error of its function", func(s *suite) {
		s.wants(s.View(s.ctx, func(keystore.Reader) error { return errTest }), errTest)
	}},
	{"an update sees its own writes", func(s *suite) {
		s.must(func(tx keystore.Tx) error {
			if err := createFamily(tx, "a"); err != nil {
				return err
			}
			for _, err := range []error{
				tx.UpdateAccount(withEmail("a", "ada@example.com")),
				tx.SetSetting("s", []byte("v")),
				tx.RecordUses([]keystore.Use{{KeyID: "a/k", First: 1, Last: 2}}),
			} {
				if err != nil {
					return err
				}
			}
			a, err1 := tx.AccountByEmail("ada@example.com")
			c, err2 := tx.Credential("a/c")
			keys, err3 := tx.Keys("a/c", keystore.Page{})
			value, err4 := tx.Setting("s")
			digests, err5 := tx.AccountDigests("a")
			if err := first(err1, err2, err3, err4, err5); err != nil {
				return err
			}
			if a.ID != "a" || c.AccountID != "a" || len(keys) != 1 || keys[0].LastUsedAt != 2 || string(value) != "v" || len(digests) != 1 {
				s.Error("a write does not show in the same update")
			}
			return nil
		})
	}},
	{"an update reads a setting as it was last set, and as its own", func(s *suite) {
		s.must(func(tx keystore.Tx) error {
			for _, want := range []string{"", "one", "two"} {
				if want != "" {
					if err := tx.SetSetting("s", []byte(want)); err != nil {
						return err
					}
				}
				for range 2 {
					value, err := tx.Setting("s")
					if err != nil || string(value) != want || (value == nil) != (want == "") {
						s.Errorf("setting is %q, %v; want %q", value, err, want)
					}
					if value != nil {
						value[0] = 'x'
					}
				}
			}
			return nil
		})
	}},
	{"nobody else sees an update before it is committed", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error {
			if err := changeAll(tx); err != nil {
				return err
			}
			s.unchanged()
			return nil
		})
		s.same(s.account("a").FirstName, "changed")
	}},
	{"an update that goes on after a record was not found is committed", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error {
			_, err := tx.Account("none")
			s.wants(err, keystore.ErrNotFound)
			s.wants(tx.UpdateAccount(newAccount("none")), keystore.ErrNotFound)
			s.wants(tx.CreateKey(newKey("k", "none")), keystore.ErrNotFound)
			return tx.SetSetting("s", []byte("v"))
		})
		s.same(string(s.setting("s")), "v")
	}},
	{"a view sees one moment, while updates are committed", func(s *suite) {
		s.family("a")
		s.view(func(r keystore.Reader) error {
			before, err := r.Account("a")
			if err != nil {
				return err
			}
			s.must(changeAll)
			after, err := r.Account("a")
			if err != nil {
				return err
			}
			s.same(after, before)
			_, err = r.Key("new/k")
			s.wants(err, keystore.ErrNotFound)
			all, err := r.Accounts(keystore.Page{})
			s.listed(ids(all), "a")
			value, err2 := r.Setting("new")
			if value != nil {
				s.Errorf("setting %q is from after the view began", value)
			}
			return first(err, err2)
		})
		s.same(s.account("a").FirstName, "changed")
	}},
	{"a view sees every update that returned before it", func(s *suite) {
		for i := range 50 {
			want := strconv.Itoa(i)
			s.must(func(tx keystore.Tx) error { return tx.SetSetting("s", []byte(want)) })
			if got := string(s.setting("s")); got != want {
				s.Fatalf("read %q, want %q", got, want)
			}
		}
	}},
	{"every update that returned is seen by its caller, whoever else writes", func(s *suite) {
		s.together(32, func(i int) {
			id := fmt.Sprint("a", i)
			s.try(func(tx keystore.Tx) error { return createFamily(tx, id) })
			if _, err := s.Lookup(s.ctx, digestOf(id+"/k")); err != nil {
				s.Errorf("Lookup after Update: %v", err)
			}
		})
	}},
	{"concurrent updates of a record are never lost", func(s *suite) {
		const callers = 300
		s.family("a")
		s.together(callers, func(int) {
			s.try(func(tx keystore.Tx) error {
				a, err := tx.Account("a")
				if err != nil {
					return err
				}
				n, _ := strconv.Atoi(a.Attributes["n"])
				a.Attributes = map[string]string{"n": strconv.Itoa(n + 1)}
				return tx.UpdateAccount(a)
			})
		})
		if got := s.account("a").Attributes["n"]; got != strconv.Itoa(callers) {
			s.Errorf("%s of %d increments are there", got, callers)
		}
	}},
	{"of concurrent updates those that fail change nothing, the others all", func(s *suite) {
		const callers = 200
		s.together(callers, func(i int) {
			err := s.Update(s.ctx, func(tx keystore.Tx) error {
				if err := createFamily(tx, fmt.Sprint("a", i)); err != nil {
					return err
				}
				if i%3 == 0 {
					return errTest
				}
				return nil
			})
			if want := map[bool]error{true: errTest}[i%3 == 0]; !errors.Is(err, want) {
				s.Errorf("update %d: %v, want %v", i, err, want)
			}
		})
		for i := range callers {
			_, err := s.Lookup(s.ctx, digestOf(fmt.Sprint("a", i, "/k")))
			if want := map[bool]error{true: keystore.ErrNotFound}[i%3 == 0]; !errors.Is(err, want) {
				s.Errorf("key of update %d: %v, want %v", i, err, want)
			}
		}
	}},
	{"of concurrent updates, a panic of one is no matter to the others", func(s *suite) {
		const callers = 60
		s.together(callers, func(i int) {
			defer func() {
				if got := recover(); (got != nil) != (i%5 == 0) {
					s.Errorf("update %d: recovered %v", i, got)
				}
			}()
			s.try(func(tx keystore.Tx) error {
				if err := createFamily(tx, fmt.Sprint("a", i)); err != nil {
					return err
				}
				if i%5 == 0 {
					panic("of the test")
				}
				return nil
			})
		})
		if got := len(s.allAccounts()); got != callers*4/5 {
			s.Errorf("%d accounts, want %d", got, callers*4/5)
		}
	}},
	{"of concurrent creations of the same, one succeeds", func(s *suite) {
		var created, conflicts atomic.Int32
		s.together(50, func(i int) {
			err := s.Update(s.ctx, func(tx keystore.Tx) error {
				return tx.CreateAccount(withEmail(fmt.Sprint("a", i), "ada@example.com"))
			})
			switch {
			case err == nil:
				created.Add(1)
			case errors.Is(err, keystore.ErrConflict):
				conflicts.Add(1)
			default:
				s.Error(err)
			}
		})
		if created.Load() != 1 || conflicts.Load() != 49 {
			s.Errorf("%d created, %d conflicts", created.Load(), conflicts.Load())
		}
	}},
	{"concurrent creations get each its own number", func(s *suite) {
		const callers = 100
		var seen sync.Map
		s.together(callers, func(i int) {
			a := newAccount(fmt.Sprint("a", i))
			s.try(func(tx keystore.Tx) error { return tx.CreateAccount(a) })
			if _, twice := seen.LoadOrStore(a.Number, true); twice || a.Number < 1 || a.Number > callers {
				s.Errorf("number %d", a.Number)
			}
		})
	}},
	{"a reader is of no use after its view", func(s *suite) {
		s.family("a")
		var kept keystore.Reader
		s.view(func(r keystore.Reader) error { kept = r; return nil })
		s.refused(readerCalls(kept))
	}},
	{"a transaction is of no use after its update, however that ended", func(s *suite) {
		s.family("a")
		for _, err := range []error{nil, errTest} {
			var kept keystore.Tx
			if got := s.Update(s.ctx, func(tx keystore.Tx) error { kept = tx; return err }); !errors.Is(got, err) {
				s.Fatalf("Update: %v, want %v", got, err)
			}
			s.refused(txCalls(kept))
		}
		s.unchanged()
		s.listed(s.allAccounts(), "a")
	}},
	{"a transaction that is used from elsewhere when its update ends does no harm", func(s *suite) {
		s.family("a")
		for range 20 {
			var wg sync.WaitGroup
			s.must(func(tx keystore.Tx) error {
				wg.Go(func() {
					for {
						if _, err := tx.Account("a"); err != nil {
							return
						}
					}
				})
				return nil
			})
			wg.Wait()
		}
	}},
}

// changeAll changes something of each kind of record of the family "a", and
// makes the family "new".
func changeAll(tx keystore.Tx) error {
	a, c, k := newAccount("a"), newCredential("a/c", "a"), newKey("a/k", "a/c")
	a.FirstName, c.Description, k.RevokedAt = "changed", "changed", 7
	return first(
		tx.UpdateAccount(a), tx.UpdateCredential(c), tx.UpdateKey(k),
		tx.RecordUses([]keystore.Use{{KeyID: "a/k", First: 7, Last: 7}}),
		tx.SetSetting("new", []byte("changed")),
		createFamily(tx, "new"))
}

// unchanged checks that nothing is there of what changeAll does.
func (s *suite) unchanged() {
	s.Helper()
	s.same(s.account("a").FirstName, "")
	s.same(s.credential("a/c").Description, "")
	k := s.key("a/k")
	s.same([]keystore.Instant{k.RevokedAt, k.FirstUsedAt, k.LastUsedAt}, []keystore.Instant{0, 0, 0})
	s.listed(s.allAccounts(), "a")
	if value := s.setting("new"); value != nil {
		s.Errorf("setting is %q", value)
	}
	_, err := s.Lookup(s.ctx, digestOf("new/k"))
	s.wants(err, keystore.ErrNotFound)
}

// refused checks that every call answers an error that is none about records.
func (s *suite) refused(calls []call) {
	s.Helper()
	for _, c := range calls {
		err := c.do()
		if err == nil || errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrConflict) {
			s.Errorf("%s: got error %v", c.name, err)
		}
	}
}

// together runs do in n goroutines that start at once, and waits for all.
func (s *suite) together(n int, do func(i int)) {
	s.Helper()
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}
