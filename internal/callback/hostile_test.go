package callback

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// hostile is a kind of listener that does what it can to hold others up, on a bare
// connection.
type hostile struct {
	name    string
	serve   func(conn net.Conn)
	verdict license.DeliveryVerdict // of each message, in the end
	posts   int                     // of each message
}

// hostiles are of every kind that a network has.
func hostiles() []hostile {
	say := func(text string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
	}
	drip := func(head string) func(net.Conn) {
		return func(conn net.Conn) {
			if _, err := io.WriteString(conn, head); err != nil {
				return
			}
			for _, err := io.WriteString(conn, "x"); err == nil; _, err = io.WriteString(conn, "x") {
				<-time.After(time.Second) // of the bubble's time
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	return []hostile{
		{"hangs", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, license.Exhausted, 4},
		{"drips its head", drip(ok + "X-Drip: "), license.Exhausted, 4},
		{"drips its body", drip(ok + "Content-Length: 1000000\r\n\r\n"), license.Delivered, 1},
		{"never ends its body", func(conn net.Conn) {
			_, err := io.WriteString(conn, ok+"Transfer-Encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(conn, "400\r\n"+strings.Repeat("x", 1024)+"\r\n")
			}
		}, license.Delivered, 1},
		{"redirects", say("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://good0/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), license.Exhausted, 4},
		{"is gone", say("HTTP/1.1 410 Gone\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), license.Exhausted, 1},
		{"resets", func(net.Conn) {}, license.Exhausted, 4},
		{"speaks no HTTP", say("220 mail.example ESMTP\r\n"), license.Exhausted, 4},
		{"has 10,000 headers", say(ok + strings.Repeat("X-Header: of some length\r\n", 10_000) + "\r\n"), license.Exhausted, 4},
		{"says 100 for ever", func(conn net.Conn) {
			for _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err == nil; _, err = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n") {
				<-time.After(100 * time.Millisecond)
			}
		}, license.Exhausted, 4},
		{"switches protocols", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn) // and waits, on a connection that no time limit is for
		}, license.Exhausted, 4},
		{"promises more than it sends", say(ok + "Content-Length: 1000\r\n\r\nshort"), license.Delivered, 1},
	}
}

// raw serves hostile connections at http://name, each once its request has been
// read, of which posted is told.
func (b *bench) raw(t *testing.T, account license.AccountName, name string, serve func(net.Conn), posted func(name string)) {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	b.web.mu.Lock()
	b.web.hosts[name+":80"] = p
	b.web.mu.Unlock()
	go func() {
		for conn, err := p.Accept(); err == nil; conn, err = p.Accept() {
			go func() {
				defer func() { _ = conn.Close() }()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				posted(name)
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					_, _ = io.Copy(io.Discard, conn)
				}()
				serve(conn)
				_ = conn.Close()
				<-drained
			}()
		}
	}()
	t.Cleanup(func() { _ = p.Close() })
	b.out.register(license.Listener{Account: account, URL: "http://" + name + "/"}, false)
}

// TestHostileListeners puts 50 listeners of all kinds beside 50 good ones. The good
// ones have everything before the first of the others has been given up; each of
// the others gets what the schedule says, neither more nor fewer, and no more of it at
// once than any listener.
func TestHostileListeners(t *testing.T) {
	const (
		each   = 20
		beside = 50
		most   = 4
	)
	bubble(t, Config{PerListener: most, Interval: 5 * time.Minute, Lease: 25 * time.Second}, func(t *testing.T, b *bench) {
		var mu sync.Mutex
		seen := map[string]int{}
		kinds := hostiles()
		for i := range beside {
			name, kind := fmt.Sprintf("bad%d", i), kinds[i%len(kinds)]
			b.raw(t, license.AccountName(name), name, kind.serve, func(name string) {
				mu.Lock()
				defer mu.Unlock()
				seen[name]++
			})
			b.out.add(license.AccountName(name), each)
			good := fmt.Sprintf("good%d", i)
			b.web.host(t, good, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusNoContent)
			})
			b.out.register(license.Listener{Account: license.AccountName(good), URL: "http://" + good + "/"}, false)
			b.out.add(license.AccountName(good), each)
		}
		b.Wake()
		advance(5 * time.Second)
		delivered := 0
		for _, d := range b.out.deliveries() {
			if strings.HasPrefix(string(d.Callback.Account), "good") && d.Verdict == license.Delivered {
				delivered++
			}
		}
		if delivered != beside*each {
			t.Errorf("%d messages at the good listeners within 5 s, want all %d", delivered, beside*each)
		}
		b.mu.Lock()
		for _, l := range b.lanes {
			if l.workers > most {
				t.Errorf("%d posts at once to %s, want at most %d", l.workers, l.account, most)
			}
		}
		b.mu.Unlock()
		for range 120 { // a listener that keeps failing has one post at a time
			advance(time.Minute)
		}
		posts, last := map[license.AccountName]int{}, map[license.AccountName]map[license.DeliveryVerdict]int{}
		for _, d := range b.out.deliveries() {
			a := d.Callback.Account
			if posts[a]++; last[a] == nil {
				last[a] = map[license.DeliveryVerdict]int{}
			}
			last[a][d.Verdict]++
			if d.Verdict == license.Again && d.Due.Sub(d.At) != 5*time.Minute {
				t.Fatalf("%s: due %v after an attempt, want 5 minutes", a, d.Due.Sub(d.At))
			}
		}
		for i := range beside {
			name, kind := fmt.Sprintf("bad%d", i), kinds[i%len(kinds)]
			a := license.AccountName(name)
			if posts[a] != kind.posts*each || last[a][kind.verdict] != each {
				t.Errorf("a listener that %s: %d posts, %v, want %d and all %d %v", kind.name, posts[a], last[a], kind.posts*each, each, kind.verdict)
			}
			if seen[name] != posts[a] {
				t.Errorf("a listener that %s saw %d posts, of which %d were counted", kind.name, seen[name], posts[a])
			}
		}
	})
}
