//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// nginxConf takes the directory of its files, the number of workers, the upstream, the
// map and the check or neither, the address, and how many connections to the upstream
// a worker keeps.
const nginxConf = `daemon off;
pid %[1]s/nginx.pid;
worker_processes %[2]d;
error_log stderr warn;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 100000000;
	%[4]s
	upstream up {
		server %[3]s;
		keepalive %[7]d;
		keepalive_requests 100000000;
	}
	server {
		listen %[6]s;
		location / {
			%[5]s
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_pass http://up;
		}
	}
}
`

// startNginx starts nginx, with a map of the keys in use or without a check.
func (b *bench) startNginx(k *children, binary string, checked bool) (*proxy, error) {
	dir, err := os.MkdirTemp(b.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	var keyMap, check string
	if checked {
		known := filepath.Join(dir, "keys")
		if err := b.writeKeys(known, "%s 1;\n"); err != nil {
			return nil, err
		}
		keyMap = fmt.Sprintf("map_hash_max_size %d;\n\tmap_hash_bucket_size 128;\n\tmap $http_x_api_key $known {\n\t\tdefault 0;\n\t\tinclude %s;\n\t}", 8**keys, known)
		check = "if ($known = 0) { return 401; }"
	}
	p := &proxy{addr: freeAddr()}
	conf := filepath.Join(dir, "nginx.conf")
	content := fmt.Sprintf(nginxConf, dir, runtime.NumCPU(), b.upstream, keyMap, check, p.addr, *connections)
	if err := os.WriteFile(conf, []byte(content), 0o600); err != nil {
		return nil, err
	}
	return p, b.startPeer(k, p, dir, checked, binary, "-e", "stderr", "-p", dir, "-c", conf)
}

// haproxyConf takes the number of threads, the address, the check or nothing, and the
// upstream.
const haproxyConf = `global
	nbthread %d
	maxconn 4096
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	option http-keep-alive
	http-reuse always
frontend in
	bind %s
	%s
	default_backend up
backend up
	server up %s
`

// startHAProxy starts HAProxy, with a map of the keys in use or without a check.
func (b *bench) startHAProxy(k *children, binary string, checked bool) (*proxy, error) {
	dir, err := os.MkdirTemp(b.dir, "haproxy-")
	if err != nil {
		return nil, err
	}
	var check string
	if checked {
		known := filepath.Join(dir, "keys")
		if err := b.writeKeys(known, "%s 1\n"); err != nil {
			return nil, err
		}
		check = fmt.Sprintf("http-request deny deny_status 401 unless { req.hdr(X-API-Key),map(%s) -m found }", known)
	}
	p := &proxy{addr: freeAddr()}
	conf := filepath.Join(dir, "haproxy.cfg")
	content := fmt.Sprintf(haproxyConf, runtime.NumCPU(), p.addr, check, b.upstream)
	if err := os.WriteFile(conf, []byte(content), 0o600); err != nil {
		return nil, err
	}
	return p, b.startPeer(k, p, dir, checked, binary, "-db", "-f", conf)
}

// writeKeys writes the keys in use, one a line.
func (b *bench) writeKeys(path, line string) error {
	var lines strings.Builder
	for _, text := range b.texts {
		fmt.Fprintf(&lines, line, text)
	}
	return os.WriteFile(path, []byte(lines.String()), 0o600)
}

func (b *bench) startPeer(k *children, p *proxy, dir string, checked bool, binary string, args ...string) error {
	output := filepath.Join(dir, "output")
	cmd, err := k.start(output, nil, binary, args...)
	if err != nil {
		return err
	}
	p.pid = cmd.Process.Pid
	if err := listening(b.ctx, p.addr, output); err != nil || !checked {
		return err
	}
	return b.refuses(p)
}

// installed finds a program, also where only the superuser's path leads.
func installed(name string) (string, bool) {
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found, true
		}
	}
	return "", false
}
