//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// syncer is what durable changes take of the machine at the very least: as many writes
// of as many pages over others, each with a sync.
type syncer struct {
	file      *os.File
	perSecond float64
	written   int
}

const (
	// pagesOfChange is how many pages a change writes to a store's log: an issue seven,
	// a revocation two or three.
	pagesOfChange = 5
	pageOfLog     = 24 + 4096 // with its header
	pagesOfLog    = 4000
)

// newSyncer makes a file for changes that come so often.
func newSyncer(dir string, perSecond float64) (*syncer, error) {
	file, err := os.Create(filepath.Join(dir, "synced"))
	if err != nil {
		return nil, err
	}
	_, err = file.Write(make([]byte, pagesOfLog*pageOfLog))
	return &syncer{file: file, perSecond: perSecond}, errors.Join(err, file.Sync())
}

func (s *syncer) close() { _ = s.file.Close() }

// write writes until it is told to stop.
func (s *syncer) write(ctx context.Context) error {
	ticks := time.NewTicker(time.Duration(float64(time.Second) / s.perSecond))
	defer ticks.Stop()
	page := make([]byte, pageOfLog)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		for range pagesOfChange {
			if _, err := s.file.WriteAt(page, int64(s.written%pagesOfLog)*pageOfLog); err != nil {
				return err
			}
			s.written++
		}
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
}
