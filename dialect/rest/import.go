package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file reads an import: one record a line, of any number of lines, which are
// stored some hundred at a time while the next are read. What a line is, is in
// import_line.go.

const (
	// NDJSON is the media type of an import and an export: a JSON object a line.
	NDJSON = "application/x-ndjson"
	// maxLine is the longest line, in bytes. No record that the store can have is
	// longer, so that every export can be imported.
	maxLine = 512 << 10
	// importBatch is how many lines are stored in a transaction, and importBatchSize
	// how many bytes of them, after which it takes no more. Other changes wait for it.
	importBatch     = 500
	importBatchSize = 4 << 20
	// readPatience is how long a client is waited for once the import has failed.
	readPatience = time.Second
)

// importAnswer counts the lines, and what they made. What was there already is
// not counted.
type importAnswer struct {
	Lines       int `json:"lines"`
	Accounts    int `json:"accounts"`
	Credentials int `json:"credentials"`
	Keys        int `json:"keys"`
}

// importLines stores what the lines of the body are. Lines before a bad one stay.
func importLines(c *call) (reply, error) {
	if media, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); err != nil || media != NDJSON {
		return reply{}, refuse(errMediaType, "", "the body must be "+NDJSON+", one JSON object a line")
	}
	// The admin endpoint gives a request ten seconds.
	connection := http.NewResponseController(c.w)
	_ = connection.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()

	batches := make(chan batch, 1)
	reader := &lineReader{keyring: c.keyring, lines: newLines(c.Body)}
	go func() {
		defer close(batches)
		reader.read(ctx, batches)
	}()
	out, err := storeBatches(c, batches)
	// The body is not to be read any more once this returns. Only a read that waits
	// for the client is ended by a deadline: the server takes it for a reason to drop
	// the connection, and with it an answer that a client which is sending has not read.
	cancel()
	impatient := time.AfterFunc(readPatience, func() { _ = connection.SetReadDeadline(time.Now()) })
	defer impatient.Stop()
	for range batches {
	}
	if err != nil { // the server reads on for a while before it answers
		_ = connection.SetReadDeadline(time.Now().Add(readPatience))
	}
	return out, err
}

// storeBatches stores what the reader brings, up to the first thing that is wrong.
func storeBatches(c *call, batches <-chan batch) (reply, error) {
	var answer importAnswer
	var stored keystore.Imported
	var refusal error
	for b := range batches {
		made, done, err := c.keyring.Import(c.Context(), b.records)
		stored.Add(made)
		switch {
		case err == nil:
			answer.Lines, refusal = b.last, b.err
		case done > 0 || errors.Is(err, keystore.ErrInvalid) || errors.Is(err, keystore.ErrConflict):
			answer.Lines = b.numbers[done] - 1
			refusal = atLine(b.numbers[done], b.kinds[done], err)
		default:
			refusal = err
		}
		if refusal != nil {
			break
		}
	}
	c.keyring.FinishImport(stored)
	if refusal != nil {
		return reply{}, &importError{answer.Lines, refusal}
	}
	answer.Accounts, answer.Credentials, answer.Keys = stored.Accounts, stored.Credentials, stored.Keys
	return ok(answer)
}

// importError is why an import ended, after so many lines that are stored.
type importError struct {
	lines int
	cause error
}

func (e *importError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *importError) Unwrap() error { return e.cause }

// lineError is a refusal with the number of the line that it is about.
type lineError struct {
	number int
	cause  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.cause) }

// Unwrap returns the cause.
func (e *lineError) Unwrap() error { return e.cause }

// atLine says of a refusal in which line it is, and in which member of what.
func atLine(number int, kind string, err error) error {
	shown, ok := errors.AsType[*keystore.Error](err)
	if !ok {
		return err
	}
	where := kind
	if shown.Member != "" {
		where += "." + shown.Member
	}
	return &lineError{number, refuse(shown.Kind, where, shown.Detail)}
}

// place completes what is said of an import that ended early: in which line it is
// wrong, and how far it got.
func place(err error, detail string) string {
	if at, ok := errors.AsType[*lineError](err); ok {
		detail = fmt.Sprintf("line %d: %s", at.number, detail)
	}
	if ended, ok := errors.AsType[*importError](err); ok {
		detail += fmt.Sprintf(". The first %d lines are imported; all can be sent again, what is there already changes nothing", ended.lines)
	}
	return detail
}

// batch is records to store in one transaction, and what is wrong behind them.
type batch struct {
	records []keystore.Record
	numbers []int    // of their lines, from 1
	kinds   []string // such as "key"
	size    int      // of the lines, in bytes
	last    int      // number of the last line before err, also an empty one
	err     error
}

// lineReader turns the lines of a body into records.
type lineReader struct {
	keyring *keystore.Keyring
	lines   *bufio.Reader
	number  int // of the line last read
	done    int // of the last line that is a record, or empty
	// pepper is the fingerprint that a line named.
	pepper []byte
	// exported counts the lines of the export that is being read, by kind. It is nil
	// outside of one.
	exported map[string]int64
}

func newLines(body io.Reader) *bufio.Reader { return bufio.NewReaderSize(body, maxLine) }

// read hands the lines over in batches, until the body or ctx ends, or a line is
// wrong.
func (r *lineReader) read(ctx context.Context, batches chan<- batch) {
	for ctx.Err() == nil {
		b := r.next()
		end := b.err
		if errors.Is(end, io.EOF) {
			b.err = nil
		}
		select {
		case batches <- b:
		case <-ctx.Done():
		}
		if end != nil {
			return
		}
	}
}

// next reads a batch. Its error is io.EOF at the end.
func (r *lineReader) next() (b batch) {
	for len(b.records) < importBatch && b.size < importBatchSize && b.err == nil {
		b.err = r.add(&b)
	}
	if errors.Is(b.err, io.EOF) && r.exported != nil {
		b.err = atLine(r.number+1, "", errCutOff)
	}
	b.last = r.done
	return b
}

// add adds the next line that is not empty to a batch.
func (r *lineReader) add(b *batch) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	kind, record, err := r.record(line)
	if err != nil {
		return atLine(r.number, kind, err)
	}
	r.done = r.number
	if r.exported != nil {
		r.exported[kind]++
	}
	if record != nil {
		b.size += len(line)
		b.records = append(b.records, record)
		b.numbers = append(b.numbers, r.number)
		b.kinds = append(b.kinds, kind)
	}
	return nil
}

// line returns the next line that is not empty. It is overwritten by the one
// after it.
func (r *lineReader) line() ([]byte, error) {
	for {
		line, err := r.lines.ReadSlice('\n')
		if len(line) > 0 {
			r.number++
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, atLine(r.number, "", refuse(errTooLarge, "", fmt.Sprintf("is longer than %d bytes", maxLine)))
		case err != nil && !errors.Is(err, io.EOF):
			return nil, refuse(errMalformed, "", "the body could not be read to its end")
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
		r.done = r.number
		if err != nil {
			return nil, err
		}
	}
}
