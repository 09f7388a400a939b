package storetest

import (
	"bytes"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var useRules = []rule{
	{"a first use sets both times", func(s *suite) {
		s.family("a")
		s.use(keystore.Use{KeyID: "a/k", First: 10, Last: 20})
		s.used("a/k", 10, 20)
		if g := s.grant(digestOf("a/k")); g.FirstUsedAt != 10 {
			s.Errorf("grant has first use at %d, want 10", g.FirstUsedAt)
		}
	}},
	{"later uses move LastUsedAt forward and leave FirstUsedAt", func(s *suite) {
		s.family("a")
		s.use(keystore.Use{KeyID: "a/k", First: 10, Last: 20})
		s.use(keystore.Use{KeyID: "a/k", First: 30, Last: 40})
		s.used("a/k", 10, 40)
	}},
	{"uses never move LastUsedAt back", func(s *suite) {
		s.family("a")
		s.use(keystore.Use{KeyID: "a/k", First: 10, Last: 20})
		s.use(keystore.Use{KeyID: "a/k", First: 1, Last: 2})
		s.used("a/k", 10, 20)
	}},
	{"a use sets FirstUsedAt where only LastUsedAt is known", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error {
			k := newKey("k", "a/c")
			k.LastUsedAt = 50
			return tx.CreateKey(k)
		})
		s.use(keystore.Use{KeyID: "k", First: 10, Last: 20})
		s.used("k", 10, 50)
	}},
	{"uses of keys that are not there are passed over", func(s *suite) {
		s.family("a", "b")
		s.use(keystore.Use{KeyID: "a/k", First: 1, Last: 2}, keystore.Use{KeyID: "none", First: 3, Last: 4},
			keystore.Use{KeyID: "b/k", First: 5, Last: 6})
		s.used("a/k", 1, 2)
		s.used("b/k", 5, 6)
		s.use()
	}},
	{"an update of a key does not undo a use that was recorded meanwhile", func(s *suite) {
		s.family("a")
		before := s.key("a/k")
		s.use(keystore.Use{KeyID: "a/k", First: 10, Last: 20})
		before.FirstUsedAt = 10
		s.must(func(tx keystore.Tx) error { return tx.UpdateKey(before) })
		s.used("a/k", 10, 20)
	}},
	{"many uses are recorded in one call", func(s *suite) {
		s.family("a", "b", "c")
		var uses []keystore.Use
		for i := range 3000 {
			uses = append(uses, keystore.Use{
				KeyID: []string{"a/k", "b/k", "c/k"}[i%3], First: keystore.Instant(i + 1), Last: keystore.Instant(i + 1),
			})
		}
		s.use(uses...)
		s.used("a/k", 1, 2998)
		s.used("b/k", 2, 2999)
		s.used("c/k", 3, 3000)
	}},

	{"a setting that was not set is nil", func(s *suite) {
		if got := s.setting("none"); got != nil {
			s.Errorf("got %q, want nil", got)
		}
	}},
	{"a setting is read as it was set, byte by byte", func(s *suite) {
		want := []byte{0, 0xff, 'a', '\'', 0}
		s.must(func(tx keystore.Tx) error { return tx.SetSetting("ключ", want) })
		if got := s.setting("ключ"); !bytes.Equal(got, want) {
			s.Errorf("got %q, want %q", got, want)
		}
	}},
	{"a setting can be set again, and to nothing", func(s *suite) {
		for _, value := range [][]byte{[]byte("one"), []byte("two"), {}, []byte("three"), nil} {
			s.must(func(tx keystore.Tx) error { return tx.SetSetting("s", value) })
			if got := s.setting("s"); got == nil || !bytes.Equal(got, value) {
				s.Errorf("got %q (nil: %t), want %q", got, got == nil, value)
			}
		}
	}},
}

func (s *suite) use(uses ...keystore.Use) {
	s.Helper()
	s.must(func(tx keystore.Tx) error { return tx.RecordUses(uses) })
}

// used checks the times of use of a key.
func (s *suite) used(id string, first, last keystore.Instant) {
	s.Helper()
	if k := s.key(id); k.FirstUsedAt != first || k.LastUsedAt != last {
		s.Errorf("key %q first used at %d, last at %d; want %d and %d", id, k.FirstUsedAt, k.LastUsedAt, first, last)
	}
}
