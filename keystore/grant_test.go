package keystore

import (
	"math/bits"
	"net/netip"
	"testing"
	"unsafe"
)

func TestWhatEveryVerdictReadsOfAGrantIsOneLine(t *testing.T) {
	if bits.UintSize != 64 {
		t.Skip("texts and lists are smaller here")
	}
	const line = 64
	var g Grant
	if size, first := unsafe.Sizeof(g), unsafe.Offsetof(g.Package); size != 4*line || first != line {
		t.Errorf("a grant is %d bytes, of which the first %d are for every verdict; want %d and %d", size, first, 4*line, line)
	}
}

func TestPlainGrants(t *testing.T) {
	for _, c := range []struct {
		name  string
		g     *Grant
		plain bool
	}{
		{"one without restrictions is plain", &Grant{Roles: []string{"read"}, ExpiresAt: 1}, true},
		{"one that was in use is plain", &Grant{UnusedExpiresAt: 1, FirstUsedAt: 1}, true},
		{"one of a package is not", &Grant{Package: "p"}, false},
		{"one with addresses is not", &Grant{AllowedIPs: []netip.Prefix{{}}}, false},
		{"one whose first use stops others is not", &Grant{UnusedExpiresAt: 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.g.plain {
				t.Error("plain before it was prepared")
			}
			if c.g.prepare(); c.g.plain != c.plain {
				t.Errorf("plain: %t", c.g.plain)
			}
		})
	}
}

func TestPreparingAGrantKeepsItsTexts(t *testing.T) {
	g := &Grant{KeyID: "k", CredentialID: "", AccountID: "account", AccountEmail: "a@example.com", Package: "p", DigestKind: DigestSHA256}
	g.prepare()
	texts := [...]string{g.KeyID, g.CredentialID, g.AccountID, g.AccountEmail, g.Package, string(g.DigestKind)}
	if want := [...]string{"k", "", "account", "a@example.com", "p", "sha256"}; texts != want {
		t.Errorf("texts %q, want %q", texts, want)
	}
}

func TestShardsForABudget(t *testing.T) {
	for size, want := range map[int64]int64{
		MinCacheSize: 1 << 16, DefaultCacheSize: 1 << 16, 1 << 30: 771_366, MaxCacheSize: 1 << 20,
	} {
		if got := shardsFor(size); got != want {
			t.Errorf("%d shards for %d bytes, want %d", got, size, want)
		}
	}
}
