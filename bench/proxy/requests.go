//go:build linux

package main

import (
	"fmt"
	"hash/crc32"
)

// source appends the i-th request.
type source func(i int, into []byte) []byte

// rotating asks with each of the keys in turn.
func rotating(texts []string) source {
	return func(i int, into []byte) []byte { return request(into, texts[i%len(texts)]) }
}

// mistyped asks with a key whose last character is wrong.
func mistyped(text string) source {
	last := byte('0')
	if text[len(text)-1] == last {
		last = '1'
	}
	return rotating([]string{text[:len(text)-1] + string(last)})
}

// unknown asks with a key that nobody has, another each time.
func unknown(i int, into []byte) []byte { return request(into, token(i)) }

// requestPath is what all requests ask for.
const requestPath = "/v1/things"

func request(into []byte, key string) []byte {
	into = append(into, "GET "+requestPath+"?page=2 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nX-API-Key: "...)
	into = append(into, key...)
	return append(into, "\r\n\r\n"...)
}

// token is a text of the default format with a right checksum.
func token(i int) string {
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	text := fmt.Appendf(nil, "key_%012d_%032d000000", i, i)
	crc := crc32.ChecksumIEEE(text[:len(text)-6])
	for place := range 6 {
		text[len(text)-1-place] = base62[crc%62]
		crc /= 62
	}
	return string(text)
}
