package m2mtest

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Option asks NewServer or Start for something else than the usual.
type Option func(*options)

// Account is an account as WithAccount makes it.
type Account struct {
	Name    string         // such as "0000123456-00001"
	Pools   map[string]int // licenses by SKU; nil is 100 of each SKU
	Devices []Device       // may be none
}

// Device is a device of an Account. Only the ICCID and the IMEI are required.
type Device struct {
	IMEI, ICCID, MDN string
	State            string // "active" (the default), "suspend", "deactive" or "pre-active"
	Generation       string // "4G" (the default), or another, which cannot be licensed
}

type options struct {
	accounts []Account
	devices  int
	pools    map[string]int

	carrierDelay      time.Duration
	refuseRate        float64
	attempts          int
	interval, timeout time.Duration
	maxDevices        int
	rateLimit         float64
	logger            *slog.Logger
	stopped           bool
	devicesSet        bool
}

// WithDevices has the account have so many devices, active and 4G.
func WithDevices(n int) Option {
	return func(o *options) { o.devices, o.devicesSet = n, true }
}

// WithPool has the account have so many licenses of a SKU, instead of 100 (or as
// many as it has devices).
func WithPool(sku string, licenses int) Option {
	return func(o *options) { o.pools[sku] = licenses }
}

// WithAccount makes an account, in place of the usual one; given more than once,
// it makes several. WithDevices and WithPool are about the usual one only.
func WithAccount(a Account) Option {
	return func(o *options) { o.accounts = append(o.accounts, a) }
}

// WithCarrierDelay has the carrier take so long for each request.
func WithCarrierDelay(d time.Duration) Option {
	return func(o *options) { o.carrierDelay = d }
}

// WithRefusals has the carrier refuse a share of all SIMs, from 0 to 1, always
// the same ones. See also Server.Refuse.
func WithRefusals(share float64) Option {
	return func(o *options) { o.refuseRate = share }
}

// WithCallbackSchedule has a message be attempted so often in all, and so long
// after each other, when it is not acknowledged within the timeout. 0 leaves a
// number as it is: 4 attempts, 100 ms, 10 s.
func WithCallbackSchedule(attempts int, interval, timeout time.Duration) Option {
	return func(o *options) { o.attempts, o.interval, o.timeout = attempts, interval, timeout }
}

// WithStoppedClock stops the server's clock, so that Server.Advance alone moves
// it. Callbacks have the usual schedule then, four attempts five minutes apart,
// unless WithCallbackSchedule gives another.
func WithStoppedClock() Option {
	return func(o *options) { o.stopped = true }
}

// WithMaxDevices has the API refuse requests of more devices.
func WithMaxDevices(n int) Option {
	return func(o *options) { o.maxDevices = n }
}

// WithRateLimit has the API answer 429 to more calls a second.
func WithRateLimit(calls float64) Option {
	return func(o *options) { o.rateLimit = calls }
}

// WithLogger has the server log there.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) { o.logger = l }
}

func optionsOf(opts []Option) (*options, error) {
	o := &options{devices: 10, pools: map[string]int{}}
	for _, opt := range opts {
		opt(o)
	}
	if o.interval == 0 && !o.stopped {
		o.interval = 100 * time.Millisecond
	}
	switch {
	case o.devices < 0:
		return nil, fmt.Errorf("WithDevices(%d): there cannot be fewer than none", o.devices)
	case len(o.accounts) > 0 && (o.devicesSet || len(o.pools) > 0):
		return nil, errors.New("WithDevices and WithPool are about the usual account, and WithAccount takes its place")
	case len(o.accounts) == 0:
		o.accounts = []Account{usualAccount(o.devices, o.pools)}
	}
	for i, a := range o.accounts {
		if a.Pools == nil {
			o.accounts[i].Pools = usualPools(len(a.Devices))
		}
	}
	return o, nil
}

func usualAccount(devices int, pools map[string]int) Account {
	a := Account{Name: "0000123456-00001", Pools: usualPools(devices)}
	for sku, n := range pools {
		a.Pools[sku] = n
	}
	for i := range devices {
		a.Devices = append(a.Devices, NewDevice(i))
	}
	return a
}

func usualPools(devices int) map[string]int {
	n := max(100, devices)
	return map[string]int{SKUFlexible: n, SKULifetime: n, SKUBundle: n, SKUIntelligence: n}
}

// NewDevice makes up the i-th of a million devices, with identifiers that have
// the right check digits.
func NewDevice(i int) Device {
	return Device{
		IMEI:  withCheckDigit(fmt.Sprintf("49015420%06d", i)),
		ICCID: withCheckDigit(fmt.Sprintf("8914800000000%06d", i)),
		MDN:   fmt.Sprintf("555%07d", i),
	}
}

// withCheckDigit puts the Luhn digit behind digits.
func withCheckDigit(digits string) string {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return digits + strconv.Itoa((10-sum%10)%10)
}

// seedText is a seed file as the server reads it.
type seedText struct {
	Applications []seedApplication `json:"applications"`
	Users        []seedUser        `json:"users"`
	Accounts     []seedAccount     `json:"accounts"`
	DeviceFiles  []string          `json:"deviceFiles"`
}

type seedApplication struct {
	Key    string `json:"key"`
	Secret string `json:"secret"`
}

type seedUser struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	Accounts []string `json:"accounts"`
}

type seedAccount struct {
	Name  string         `json:"name"`
	Pools map[string]int `json:"pools"`
}

// seed is what the server is to start from: the text of a seed file, with the
// devices in a file of their own.
func (s *Server) seed(o *options) (string, error) {
	devices, err := filepath.Abs(filepath.Join(s.dir, "devices.csv"))
	if err != nil {
		return "", err
	}
	text := seedText{
		Applications: []seedApplication{{s.Key, s.Secret}},
		Users:        []seedUser{{s.Username, s.Password, s.Accounts}},
		DeviceFiles:  []string{devices},
	}
	rows := [][]string{{"account", "imei", "iccid", "mdn", "state", "generation"}}
	for _, a := range o.accounts {
		text.Accounts = append(text.Accounts, seedAccount{a.Name, a.Pools})
		for _, d := range a.Devices {
			rows = append(rows, []string{a.Name, d.IMEI, d.ICCID, d.MDN, cmp.Or(d.State, "active"), cmp.Or(d.Generation, "4G")})
		}
	}
	f, err := os.Create(devices)
	if err != nil {
		return "", err
	}
	err = csv.NewWriter(f).WriteAll(rows)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	content, err := json.Marshal(text) // which is YAML as well
	return string(content), err
}
