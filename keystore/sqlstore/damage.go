package sqlstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file judges a database file before the engine opens it, from the
// file's own bytes, because the engine repairs what it opens: a file that is
// refused stays as it was found. The format is https://sqlite.org/fileformat.html.
//
// The judgement reads the header and the -wal, not the whole file, so that a
// large store starts as fast as a small one. What it can't see, the engine
// reports when a read meets it.

const (
	magic      = "SQLite format 3\x00"
	headerSize = 100
	// applicationID marks a file as a store of keys: "AKey".
	applicationID = 0x414b6579
)

const restore = "restore a backup, and keep this file aside"

// header is what the judgement needs of the first 100 bytes of a file.
type header struct {
	pageSize      int64
	pages         uint32
	schema        int64
	applicationID uint32
}

// checkDamage judges the file at path, which exists.
func checkDamage(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return refusal(path, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return refusal(path, "%w", err)
	}
	h, err := readHeader(f, info.Size())
	if err != nil {
		return damaged(path, err)
	}
	return h.check(path, info.Size())
}

// damaged wraps what is wrong with the file at path.
func damaged(path string, err error) error {
	return fmt.Errorf("api_keys: store %s: %w: %w", path, keystore.ErrDamaged, err)
}

func readHeader(f io.Reader, size int64) (header, error) {
	var b [headerSize]byte
	n, err := io.ReadFull(f, b[:])
	switch {
	case size == 0:
		return header{}, errors.New("the file is empty: " + restore + ", or remove it to start anew")
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return header{}, err
	case !bytes.HasPrefix(b[:], []byte(magic)[:min(n, len(magic))]):
		return header{}, errors.New("the file is not an SQLite database: name another file, or " + restore)
	case n < headerSize:
		return header{}, errors.New("the file is truncated: " + restore)
	}
	h := header{
		pageSize:      int64(binary.BigEndian.Uint16(b[16:])),
		pages:         binary.BigEndian.Uint32(b[28:]),
		schema:        int64(binary.BigEndian.Uint32(b[60:])),
		applicationID: binary.BigEndian.Uint32(b[68:]),
	}
	if h.pageSize == 1 {
		h.pageSize = 1 << 16 // It does not fit in the two bytes.
	}
	return h, nil
}

func (h header) check(path string, size int64) error {
	if h.applicationID != applicationID {
		return damaged(path, fmt.Errorf("the file is an SQLite database of another program (application id %#x): name another file, or %s",
			h.applicationID, restore))
	}
	if h.schema > schemaVersion {
		return damaged(path, newerSchema(h.schema))
	}
	if h.pageSize < 512 || h.pageSize&(h.pageSize-1) != 0 {
		return damaged(path, fmt.Errorf("the file has a page size of %d: %s", h.pageSize, restore))
	}
	// A crash in the middle of a checkpoint may leave a file that is shorter
	// than its header says. The missing pages are then in the log.
	missing, err := missingPages(path+"-wal", h, size)
	if err != nil {
		return refusal(path, "%w", err)
	}
	if missing > 0 {
		return damaged(path, fmt.Errorf("the file is truncated, %d of %d pages are missing: %s", missing, h.pages, restore))
	}
	return nil
}

func newerSchema(version int64) error {
	return fmt.Errorf("the schema has version %d, this program knows versions up to %d: run the newer program, or restore a backup made by this one",
		version, schemaVersion)
}

// missingPages counts the pages that neither the file nor its log has.
func missingPages(wal string, h header, size int64) (int64, error) {
	first, last := size/h.pageSize+1, int64(h.pages)
	if first > last {
		return 0, nil
	}
	logged, err := loggedPages(wal, h.pageSize)
	if err != nil {
		return 0, err
	}
	missing := last - first + 1
	for page := range logged {
		if int64(page) >= first && int64(page) <= last {
			missing--
		}
	}
	return missing, nil
}

// loggedPages returns the pages that the log holds. It trusts the salt that
// ties each frame to the log's header; the engine verifies checksums.
func loggedPages(wal string, pageSize int64) (map[uint32]bool, error) {
	f, err := os.Open(wal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	var head [32]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, nil // A log without a header holds nothing.
	}
	pages := make(map[uint32]bool)
	for {
		var frame [24]byte
		if _, err := io.ReadFull(r, frame[:]); err != nil || !bytes.Equal(frame[8:16], head[16:24]) {
			return pages, nil
		}
		if _, err := r.Discard(int(pageSize)); err != nil {
			return pages, nil
		}
		pages[binary.BigEndian.Uint32(frame[:])] = true
	}
}
