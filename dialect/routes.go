package dialect

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Routes is a table of management routes. A path is on a route only in the
// exact spelling of its pattern: the path is neither cleaned nor unescaped
// before it is compared, so that no other spelling reaches a route by surprise;
// it goes on to enforcement like every path that is not a route.
type Routes struct {
	base       string
	notAllowed http.HandlerFunc
	paths      []*path
}

// path is the routes of one pattern, by method.
type path struct {
	segments []string // "{name}" stands for any one segment
	methods  map[string]http.HandlerFunc
	allow    string
}

// NewRoutes makes an empty table below base. NotAllowed answers other methods
// on a known path; the header Allow is set when it runs.
func NewRoutes(base string, notAllowed http.HandlerFunc) *Routes {
	return &Routes{base: base, notAllowed: notAllowed}
}

// Handle adds a route, such as "GET /accounts/{account}". The handler reads the
// segments that stand for a name with [http.Request.PathValue], unescaped. GET
// answers HEAD too.
func (rs *Routes) Handle(pattern string, h http.HandlerFunc) {
	rs.HandleOnly(pattern, h)
	if path, isGet := strings.CutPrefix(pattern, http.MethodGet+" "); isGet {
		rs.HandleOnly(http.MethodHead+" "+path, h)
	}
}

// HandleOnly is Handle for a GET that is no mere reading, and does not answer
// HEAD.
func (rs *Routes) HandleOnly(pattern string, h http.HandlerFunc) {
	method, rest, _ := strings.Cut(pattern, " ")
	segments := strings.Split(rest, "/")[1:]
	i := slices.IndexFunc(rs.paths, func(p *path) bool { return slices.Equal(p.segments, segments) })
	if i < 0 {
		i = len(rs.paths)
		rs.paths = append(rs.paths, &path{segments: segments, methods: map[string]http.HandlerFunc{}})
	}
	p := rs.paths[i]
	p.methods[method] = h
	allowed := make([]string, 0, len(p.methods))
	for m := range p.methods {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	p.allow = strings.Join(allowed, ", ")
}

// Find returns what answers the request, nil if its path is on no route.
func (rs *Routes) Find(r *http.Request) http.HandlerFunc {
	target := r.URL.EscapedPath()
	if !strings.HasPrefix(target, rs.base) {
		return nil
	}
	target = target[len(rs.base):]
	for _, p := range rs.paths {
		if p.matches(target) {
			return rs.handler(p, r.Method, target)
		}
	}
	return nil
}

func (rs *Routes) handler(p *path, method, target string) http.HandlerFunc {
	h, ok := p.methods[method]
	return func(w http.ResponseWriter, r *http.Request) {
		if !ok {
			w.Header().Set("Allow", p.allow)
			h = rs.notAllowed
		}
		p.setValues(r, target)
		h(w, r)
	}
}

// matches compares segment by segment, without allocating. A segment that
// stands for a name must not be empty.
func (p *path) matches(target string) bool {
	for _, want := range p.segments {
		if target == "" || target[0] != '/' {
			return false
		}
		segment := target[1:]
		if i := strings.IndexByte(segment, '/'); i >= 0 {
			segment = segment[:i]
		}
		target = target[1+len(segment):]
		if isName(want) && segment == "" || !isName(want) && segment != want {
			return false
		}
	}
	return target == ""
}

// setValues hands the named segments to the handler. One that is not validly
// escaped is handed over as it is: no id has a '%'.
func (p *path) setValues(r *http.Request, target string) {
	for i, segment := range strings.Split(target, "/")[1:] {
		if !isName(p.segments[i]) {
			continue
		}
		value, err := url.PathUnescape(segment)
		if err != nil {
			value = segment
		}
		r.SetPathValue(p.segments[i][1:len(p.segments[i])-1], value)
	}
}

func isName(segment string) bool { return segment != "" && segment[0] == '{' }
