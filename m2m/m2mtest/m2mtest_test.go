package m2mtest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

func TestServer(t *testing.T) {
	s := m2mtest.NewServer(t)
	l := s.Listen(t, s.Account)
	s.Refuse(s.Devices[1], m2m.NewDevice(s.Devices[2].IMEI(), ""))

	request := m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: s.Devices[:4]}
	id, err := s.Client.Assign(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for iccid, m := range l.Outcomes(t, id, 4) {
		refused := iccid == s.Devices[1].ICCID() || iccid == s.Devices[2].ICCID()
		if err := m.Err(); errors.Is(err, m2m.ErrCarrierRefused) != refused {
			t.Errorf("device %s: %v, refused %v was wanted", iccid, err, refused)
		}
	}
	if st, err := s.Client.Wait(t.Context(), s.Account, id); err != nil || st.Status != m2m.StatusFailure {
		t.Errorf("the request's status is %+v, %v, want %s", st, err, m2m.StatusFailure)
	}
	pools, err := s.Client.Subscriptions(t.Context(), s.Account, m2mtest.SKUFlexible)
	if err != nil || pools.SubscriptionList[0].LicenseAssigned != 2 {
		t.Errorf("pools %+v, %v, want 2 assigned", pools, err)
	}
	s.Relent(s.Devices[1])
	request.Devices = s.Devices[1:2]
	if id, err = s.Client.Assign(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if m := l.Outcomes(t, id, 1)[s.Devices[1].ICCID()]; m.Err() != nil {
		t.Errorf("the device is refused after Relent: %v", m.Err())
	}
	if len(l.Messages()) != 5 {
		t.Errorf("%d messages came, want 5", len(l.Messages()))
	}
}

func TestOptions(t *testing.T) {
	suspended, old := m2mtest.NewDevice(1), m2mtest.NewDevice(2)
	suspended.State, old.Generation = "suspend", "3G"
	s := m2mtest.NewServer(t,
		m2mtest.WithAccount(m2mtest.Account{
			Name: "0000111111-00001", Pools: map[string]int{m2mtest.SKULifetime: 1},
			Devices: []m2mtest.Device{m2mtest.NewDevice(0), suspended, old, m2mtest.NewDevice(3)},
		}),
		m2mtest.WithAccount(m2mtest.Account{Name: "0000222222-00001", Devices: []m2mtest.Device{m2mtest.NewDevice(7)}}),
		m2mtest.WithMaxDevices(2), m2mtest.WithCarrierDelay(time.Hour), m2mtest.WithRefusals(0.5),
		m2mtest.WithCallbackSchedule(2, time.Second, time.Second), m2mtest.WithRateLimit(1000),
	)
	for _, c := range []struct {
		name    string
		devices []m2m.Device
		want    error
	}{
		{"suspended", s.Devices[1:2], m2m.ErrDeviceState},
		{"3G", s.Devices[2:3], m2m.ErrDeviceNotEligible},
		{"another account's", s.DevicesOf("0000222222-00001"), m2m.ErrDevicesNotFound},
		{"too many", s.Devices[:3], m2m.ErrMaxRequestsExceeded},
		{"more than there are licenses", []m2m.Device{s.Devices[0], s.Devices[3]}, m2m.ErrInsufficientLicense},
		{"right", s.Devices[:1], nil},
		{"pending", s.Devices[:1], m2m.ErrLicenseHeld},
	} {
		_, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKULifetime, Devices: c.devices})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for name, opts := range map[string][]m2mtest.Option{
		"fewer than none":       {m2mtest.WithDevices(-1)},
		"no SKU":                {m2mtest.WithPool("SIMSec", 1)},
		"a pool of which":       {m2mtest.WithAccount(m2mtest.Account{Name: "0000111111-00001"}), m2mtest.WithPool(m2mtest.SKUFlexible, 1)},
		"a share above 1":       {m2mtest.WithRefusals(2)},
		"a device of no digits": {m2mtest.WithAccount(m2mtest.Account{Name: "0000111111-00001", Devices: []m2mtest.Device{{IMEI: "x", ICCID: "y"}}})},
	} {
		if s, err := m2mtest.Start(opts...); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Close() // it is not wanted
		}
	}
}

func TestTime(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithStoppedClock(), m2mtest.WithCarrierDelay(time.Hour))
	var attempts atomic.Int64
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		attempts.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer listener.Close()
	ctx := t.Context()
	if _, err := s.Client.RegisterListener(ctx, s.Account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: listener.URL}); err != nil {
		t.Fatal(err)
	}
	id, err := s.Client.Assign(ctx, m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: s.Devices[:1]})
	if err != nil {
		t.Fatal(err)
	}
	began := s.Now()
	for i, step := range []struct {
		advance  time.Duration
		status   string
		attempts int64
	}{
		{59 * time.Minute, m2m.StatusPending, 0},
		{time.Minute, m2m.StatusSuccess, 1},
		{5 * time.Minute, m2m.StatusSuccess, 2},
		{time.Hour, m2m.StatusSuccess, 4}, // and no more
	} {
		s.Advance(t, step.advance)
		// Token and session have run out meanwhile, and are renewed.
		if got, err := s.Client.RequestStatus(ctx, s.Account, id); err != nil || got.Status != step.status {
			t.Errorf("step %d: status %q, %v, want %s", i, got.Status, err, step.status)
		}
		if got := attempts.Load(); got != step.attempts {
			t.Errorf("step %d: %d attempts were made, want %d", i, got, step.attempts)
		}
	}
	s.Settle(t)
	if got := s.Now().Sub(began); got != 125*time.Minute {
		t.Errorf("%s have passed, want 2h5m", got)
	}
}
