package m2m_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

// start starts what stands for a server in these examples.
func start(opts ...m2mtest.Option) (server *m2mtest.Server, stop func()) {
	server, err := m2mtest.Start(opts...)
	if err != nil {
		log.Fatal(err)
	}
	return server, func() {
		if err := server.Close(); err != nil {
			log.Fatal(err)
		}
	}
}

// Assigning a license to a device, and waiting until it is there.
func Example() {
	server, stop := start() // stands for https://simlatch.example.com
	defer stop()

	client, err := m2m.New(m2m.Config{
		BaseURL: server.URL,
		Key:     server.Key, Secret: server.Secret,
		Username: server.Username, Password: server.Password,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := client.Assign(ctx, m2m.LicenseRequest{
		AccountName: "0000123456-00001",
		SKUNumber:   "SIMSec-IoT",
		Devices:     []m2m.Device{m2m.NewDevice("490154200000000", "89148000000000000001")},
	})
	switch {
	case errors.Is(err, m2m.ErrInsufficientLicense):
		log.Fatal("buy more licenses first")
	case err != nil:
		log.Fatal(err)
	}
	status, err := client.Wait(ctx, "0000123456-00001", id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.Status)
	// Output: Success
}

// A listener that is told how each device of a request ended. What the carrier
// refuses is told here, since the request was accepted.
func ExampleCallbackHandler() {
	server, stop := start()
	defer stop()
	client, ctx := server.Client, context.Background()
	server.Refuse(server.Devices[0]) // so that there is something to see

	outcomes := make(chan string)
	handler := m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error {
		if err := m.Err(); err != nil {
			outcomes <- fmt.Sprintf("%s failed: %v", m.ICCID(), err)
			return nil // taken in, for all that
		}
		outcomes <- fmt.Sprintf("%s has its license", m.ICCID())
		return nil
	}, m2m.WithCredentials("me", "my-password"))
	listener := httptest.NewServer(handler) // stands for http.ListenAndServe
	defer listener.Close()

	if _, err := client.RegisterListener(ctx, server.Account, m2m.ListenerRequest{
		Name: m2m.CarrierService, URL: listener.URL, Username: "me", Password: "my-password",
	}); err != nil {
		log.Fatal(err)
	}
	for _, device := range server.Devices[:2] {
		if _, err := client.Assign(ctx, m2m.LicenseRequest{
			AccountName: server.Account, SKUNumber: m2mtest.SKUFlexible, Devices: []m2m.Device{device},
		}); err != nil {
			log.Fatal(err)
		}
		fmt.Println(<-outcomes)
	}
	// Output:
	// 89148000000000000001 failed: REQUEST_FAILED: The simulated carrier refused this SIM (UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful)
	// 89148000000000000019 has its license
}

// What a request would do, before it does it for ever.
func ExampleClient_Plan() {
	server, stop := start(m2mtest.WithPool(m2mtest.SKULifetime, 5))
	defer stop()

	stranger := m2m.NewDevice("490154203237518", "89148000000000099996")
	plan, err := server.Client.Plan(context.Background(), m2m.ActionAssign, m2m.LicenseRequest{
		AccountName: server.Account, SKUNumber: m2mtest.SKULifetime, Devices: append(server.Devices[:2:2], stranger),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range plan.Devices {
		fmt.Println(d.ICCID(), d.Outcome)
		if d.Outcome != m2m.PlanOK {
			fmt.Println("  since", d.ErrorMessage)
		}
	}
	fmt.Println("accepted as a whole:", plan.Accepted)
	// Output:
	// 89148000000000000001 ok
	// 89148000000000000019 ok
	// 89148000000000099996 refused
	//   since REQUEST_FAILED: Devices not found for the specified IMEI and ICCID.
	// accepted as a whole: false
}

// A program that stores the key before it calls may call again after a crash:
// the work is done once.
func ExampleWithIdempotencyKey() {
	server, stop := start()
	defer stop()
	ctx := context.Background()
	request := m2m.LicenseRequest{AccountName: server.Account, SKUNumber: m2mtest.SKUFlexible, Devices: server.Devices[:3]}
	const key = "line 17 of fleet.csv, of Monday"

	first, err := server.Client.Assign(ctx, request, m2m.WithIdempotencyKey(key))
	if err != nil {
		log.Fatal(err)
	}
	second, err := server.Client.Assign(ctx, request, m2m.WithIdempotencyKey(key))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same request:", first == second)

	_, err = server.Client.Assign(ctx, request) // with a key of its own
	fmt.Println("another one:", errors.Is(err, m2m.ErrLicenseHeld))
	// Output:
	// the same request: true
	// another one: true
}

// Going through all devices, however many there are.
func ExampleClient_Devices() {
	server, stop := start(m2mtest.WithDevices(2500))
	defer stop()

	n := 0
	for device, err := range server.Client.Devices(context.Background(), m2m.DeviceListRequest{CurrentState: "active"}) {
		if err != nil {
			log.Fatal(err)
		}
		if n++; n == 1 {
			fmt.Println(device.ICCID(), device.IMEI(), device.MDN())
		}
	}
	fmt.Println(n, "devices")
	// Output:
	// 89148000000000000001 490154200000000 5550000000
	// 2500 devices
}

// How many licenses there are.
func ExampleClient_Subscriptions() {
	server, stop := start(m2mtest.WithPool(m2mtest.SKUFlexible, 7))
	defer stop()

	pools, err := server.Client.Subscriptions(context.Background(), server.Account, m2mtest.SKUFlexible)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range pools.SubscriptionList {
		fmt.Printf("%s (%s): %d of %d available\n", p.SKUNumber, p.LicenseType, p.LicenseAvailable, p.LicensePurchased)
	}
	// Output: SIMSec-IoT (Flexible): 7 of 7 available
}

// counter is a transport that counts calls.
type counter struct {
	calls int
	http.RoundTripper
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.calls++
	return c.RoundTripper.RoundTrip(r)
}

// A client with a transport of its own, such as for metrics, a proxy or a
// private certificate authority.
func ExampleConfig() {
	server, stop := start()
	defer stop()

	transport := &counter{RoundTripper: http.DefaultTransport}
	client, err := m2m.New(m2m.Config{
		BaseURL: server.URL, Key: server.Key, Secret: server.Secret, Username: server.Username, Password: server.Password,
		HTTPClient: &http.Client{Transport: transport, Timeout: 10 * time.Second},
		Retries:    -1, // each call once
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if _, err := client.Account(context.Background(), server.Account); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(transport.calls, "calls: a token, a session, and three of ours")
	// Output: 5 calls: a token, a session, and three of ours
}
