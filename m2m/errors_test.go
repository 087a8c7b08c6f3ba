package m2m_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/simlatch/simlatch/m2m"
)

func TestErrorIs(t *testing.T) {
	const carrier = "REQUEST_FAILED.CarrierRequestUnsuccessful"
	tests := []struct {
		name   string
		err    *m2m.Error
		target error
		want   bool
	}{
		{"the same", m2m.ErrInsufficientLicense, m2m.ErrInsufficientLicense, true},
		{"another", m2m.ErrInsufficientLicense, m2m.ErrSKUInvalid, false},
		{"another service", &m2m.Error{Code: "Other.Service.REQUEST_FAILED.AccountNotFound", Message: "x"}, m2m.ErrAccountNotFound, true},
		{"no service", &m2m.Error{Code: "REQUEST_FAILED.AccountNotFound"}, m2m.ErrAccountNotFound, true},
		{"no class", &m2m.Error{Code: "DeserializationFailed"}, m2m.ErrDeserialization, true},
		{"one code, another message", m2m.ErrLicenseHeld, m2m.ErrDevicesNotFound, false},
		{"one code, whatever message", m2m.ErrLicenseHeld, m2m.ErrCarrierRefused, true},
		{"the message without its class", &m2m.Error{Code: carrier, Message: "Device already has license assigned."}, m2m.ErrAlreadyLicensed, true},
		{"the class spelt otherwise", &m2m.Error{Code: carrier, Message: "REQUEST_FAILED. Device already has license assigned"}, m2m.ErrAlreadyLicensed, true},
		{"the gateway's token", &m2m.Error{Status: 401, Code: "900901"}, m2m.ErrAuthorization, true},
		{"the gateway's path", &m2m.Error{Status: 404, Code: "900906"}, m2m.ErrResourceNotFound, true},
		{"another 429", &m2m.Error{Status: 429, Message: "slow down"}, m2m.ErrTooManyRequests, true},
		{"a proxy's 503", &m2m.Error{Status: 503, Message: "<html>"}, m2m.ErrUnavailable, true},
		{"a login refused unchecked", &m2m.Error{Status: 429, Code: m2m.CodeAuthentication}, m2m.ErrAuthentication, true},
		{"no code at all", &m2m.Error{Status: 500}, m2m.ErrUnexpected, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := errors.Is(fmt.Errorf("assigning: %w", tt.err), tt.target); got != tt.want {
				t.Errorf("errors.Is(%v, %v) = %v, want %v", tt.err, tt.target, got, tt.want)
			}
		})
	}
}

func TestCallbackErr(t *testing.T) {
	message := m2m.CallbackMessage{
		Status: m2m.CallbackFailed, DeviceIDs: []m2m.DeviceID{{ID: "89148000000000000012", Kind: "Iccid"}, {ID: "490154203237518", Kind: "Imei"}},
		FaultResponse: &m2m.FaultResponse{FaultCode: m2m.ErrAlreadyLicensed.Code, FaultString: m2m.ErrAlreadyLicensed.Message},
	}
	if err := message.Err(); !errors.Is(err, m2m.ErrAlreadyLicensed) {
		t.Errorf("Err() = %v, want %v", err, m2m.ErrAlreadyLicensed)
	}
	if message.ICCID() != "89148000000000000012" || message.IMEI() != "490154203237518" || message.MDN() != "" {
		t.Errorf("identifiers %q, %q, %q", message.ICCID(), message.IMEI(), message.MDN())
	}
	ended := m2m.CallbackMessage{Status: m2m.CallbackSuccess}
	if err := ended.Err(); err != nil {
		t.Errorf("Err() of a success = %v, want nil", err)
	}
}
