//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"text/template"

	"github.com/simlatch/simlatch/internal/load"
)

// Who may call the nodes, and what there is.
const (
	account  = "0000123456-00001"
	key      = "demo-key"
	secret   = "demo-secret"
	user     = "demo"
	password = "demo-password"
	sku      = "SIMSec-IoT"
	sims     = 100_000
)

// database is the name of the nodes' database and of the role that owns it.
const database = "simlatch"

// settings are what the parts must know of each other.
type settings struct {
	Bin      string // where PostgreSQL's programs are
	Etcd     address
	Peer     address // etcd's, for other etcds
	Primary  address // HAProxy's
	Postgres [2]postgres

	// EtcdV3 has Patroni use version 3 of etcd's API. Debian 12's Patroni (3.0.2)
	// writes the key of the leader there without looking who has it, and a
	// primary that thaws takes it back from the one that was promoted.
	EtcdV3 bool

	Superuser, Replication, Rewind string // passwords
	Database                       string // the password of the nodes' role
}

// postgres is one server and the Patroni that looks after it.
type postgres struct {
	Name    string
	Data    string
	Pass    string // a file of passwords that Patroni writes
	Address address
	REST    address
}

// address is HOST:PORT.
type address string

func (a address) port() string {
	_, port, _ := net.SplitHostPort(string(a)) // we made it
	return port
}

func (a address) url() string { return "http://" + string(a) }

// ports finds n free ports on loopback, no two the same.
func ports(ctx context.Context, n int) (list []address, err error) {
	// All are held until the last is found, or the kernel might give one twice.
	var held []net.Listener
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		held = append(held, l)
		list = append(list, address(l.Addr().String()))
	}
	return list, nil
}

// patroniText is patroni.yml of one server. Timings are the shortest that
// Patroni takes, so that nobody waits long; what is under bootstrap.dcs is the
// first server's word for both. There is no superuser in another file, no
// socket, and nobody else on loopback gets in without a password.
var patroniText = template.Must(template.New("patroni.yml").Parse(`scope: simlatch
name: {{.Own.Name}}
restapi: {listen: "{{.Own.REST}}", connect_address: "{{.Own.REST}}"}
{{if .EtcdV3}}etcd3{{else}}etcd{{end}}: {host: "{{.Etcd}}"}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 5
    retry_timeout: 5
    # No commit is answered before the standby has it, and only such a standby is promoted.
    synchronous_mode: true
    # With etcd gone, the primary goes on as long as it reaches every other server.
    failsafe_mode: true
    postgresql:
      use_pg_rewind: true
      # A frozen standby holds commits up until the primary gives it up: 60s unless told.
      parameters: {max_connections: 200, wal_sender_timeout: 10s, wal_receiver_timeout: 10s}
  initdb: [{encoding: UTF8}, {locale: C.UTF-8}, data-checksums]
postgresql:
  listen: "{{.Own.Address}}"
  connect_address: "{{.Own.Address}}"
  data_dir: "{{.Own.Data}}"
  bin_dir: "{{.Bin}}"
  pgpass: "{{.Own.Pass}}"
  authentication:
    superuser: {username: postgres, password: "{{.Superuser}}"}
    replication: {username: replicator, password: "{{.Replication}}"}
    rewind: {username: rewinder, password: "{{.Rewind}}"}
  pg_hba:
    - host replication replicator 127.0.0.1/32 scram-sha-256
    - host all all 127.0.0.1/32 scram-sha-256
  parameters: {unix_socket_directories: "", timezone: UTC, log_timezone: UTC}
`))

// patroni renders the settings of server i.
func (s *settings) patroni(i int) (string, error) {
	var b bytes.Buffer
	err := patroniText.Execute(&b, struct {
		*settings
		Own postgres
	}{s, s.Postgres[i]})
	return b.String(), err
}

var haproxyText = template.Must(template.New("haproxy.cfg").Funcs(template.FuncMap{"port": address.port}).Parse(`global
  log stdout format raw local0 notice
  maxconn 1000
defaults
  mode tcp
  log global
  timeout connect 3s
  timeout check 2s
  # Longer than a node leaves a connection idle.
  timeout client 1h
  timeout server 1h
listen primary
  bind {{.Primary}}
  # Patroni answers 200 on the primary, for as long as it is one.
  option httpchk GET /primary
  http-check expect status 200
  # Who was connected to a primary that is none any more must not stay.
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
{{- range .Postgres}}
  server {{.Name}} {{.Address}} check port {{port .REST}}
{{- end}}
`))

func (s *settings) haproxy() (string, error) {
	var b bytes.Buffer
	err := haproxyText.Execute(&b, s)
	return b.String(), err
}

// databaseURL is the nodes' way to the primary.
func (s *settings) databaseURL() string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", database, s.Database, s.Primary, database)
}

// superuserURL is ours; it accepts no standby.
func (s *settings) superuserURL() string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable&target_session_attrs=read-write", s.Superuser, s.Primary)
}

// seed is what the first node creates. Its SIMs are in fleet.csv.
func seed() string {
	return fmt.Sprintf(`applications: [{key: %s, secret: %s}]
users: [{username: %s, password: %s, accounts: [%q]}]
accounts:
  - {name: %q, pools: {%s: 1000000, SIMSec-IoT-Lt: 1000}}
deviceFiles: [fleet.csv]
`, key, secret, user, password, account, account, sku)
}

// fleet is the SIMs, as CSV.
func fleet() string {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	fmt.Fprintln(w, "account,imei,iccid,mdn,state,generation")
	for i := range sims {
		fmt.Fprintf(w, "%s,%s,%s,5%09d,active,4G\n", account, load.Fleet{}.IMEI(i), load.Fleet{}.ICCID(i), i)
	}
	_ = w.Flush() // into memory
	return b.String()
}
