package m2m_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/simlatch/simlatch/m2m"
)

// Assigning a license to one device, and the listener that is told how it went.
func Example() {
	server := newPlatform() // stands for a real one
	defer server.Close()

	http.Handle("/callbacks", m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error {
		log.Printf("request %s, SIM %s: %s", m.RequestID, m.DeviceIDs[0].ID, m.Status)
		return nil
	}, m2m.WithCredentials("me", "my-password")))

	client, err := m2m.New(m2m.Config{
		BaseURL: server.URL,
		Key:     "demo-key", Secret: "demo-secret",
		Username: "demo", Password: "demo-password",
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err := client.RegisterListener(ctx, "0000123456-00001", m2m.ListenerRequest{
		Name: m2m.CarrierService, URL: "https://me.example.com/callbacks", Username: "me", Password: "my-password",
	}); err != nil {
		log.Fatal(err)
	}
	id, err := client.Assign(ctx, m2m.LicenseRequest{
		AccountName: "0000123456-00001",
		SKUNumber:   "SIMSec-IoT",
		Devices: []m2m.Device{{DeviceIDs: []m2m.DeviceID{
			{ID: "490154203237518", Kind: "imei"}, {ID: "89148000000000000012", Kind: "iccid"},
		}}},
	})
	if errors.Is(err, m2m.ErrInsufficientLicense) {
		log.Fatal("buy more licenses first")
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted as", id)
	// Output: accepted as c3f3d17c-79ff-4b35-82df-94446785b6e0
}
