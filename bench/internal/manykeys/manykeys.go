// Package manykeys makes the keys of benchmarks that need more than can be issued in
// a sensible time, as lines of an import.
package manykeys

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
)

// Text is the text of the i-th key.
func Text(i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "scale %d", i))
	return fmt.Sprintf("live-%x", sum[:16])
}

// Write writes the lines of n keys. A credential has per of them, and ten credentials
// share an account.
func Write(w io.Writer, n, per int) error {
	out := bufio.NewWriterSize(w, 1<<16)
	for i := range n {
		if err := writeKey(out, i, per); err != nil {
			return err
		}
	}
	return out.Flush()
}

// writeKey writes the line of the i-th key, after those of its owners if it is their
// first.
func writeKey(out io.Writer, i, per int) error {
	c := i / per
	var lines []byte
	if i%(10*per) == 0 {
		lines = fmt.Appendf(lines, `{"account":{"id":"customer-%d","email":"customer-%[1]d@example.com","company":"Customer %[1]d"}}`+"\n", c/10)
	}
	credential := fmt.Sprintf("019a0000-%04x-7%03x-8000-%012x", c>>16&0xffff, c>>4&0xfff, c)
	if i%per == 0 {
		lines = fmt.Appendf(lines, `{"credential":{"id":"%s","account_id":"customer-%d","roles":["read"],"description":"imported"}}`+"\n", credential, c/10)
	}
	lines = fmt.Appendf(lines, `{"key":{"credential_id":"%s","digest":"%x","created_at":"2024-05-06T07:08:09.000Z"}}`+"\n", credential, sha256.Sum256([]byte(Text(i))))
	_, err := out.Write(lines)
	return err
}
