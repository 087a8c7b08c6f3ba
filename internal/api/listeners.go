package api

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// services are the names under which a listener can be registered: those of the
// documentation and those a client of the reference knows beside them
// (thingspace-api.md 6.3).
func services() []string {
	return []string{
		"AlertsService", license.CarrierService, "DevicePRLInformation", "DeviceService", "DeviceSuspensionStatus",
		"DeviceUsage", "EnhancedConnectivityService", "ExternalProvisioningChanges", "NiddService", "PromoChanges",
		"ResumeTrackingNotification", "SMSDeliveryConfirmation", "StateService",

		"AlertService", "DeviceProfileService", "DevicePromoUsage", "DiagnosticsService",
		"ExtendedEnhancedConnectivityService", "IntelligenceService", "NetworkEventService", "PwnService", "QoS",
		"SubscriptionNotificationService", "VIPCallbackService",
	}
}

// hidden stands for a password that is set.
const hidden = "********"

// listeners lists the listeners of an account, without their passwords.
func (a *API) listeners(ctx context.Context, c *call, _ struct{}) ([]m2m.Listener, error) {
	account, err := c.Account(c.r.PathValue("account"))
	if err != nil {
		return nil, accountError(err)
	}
	stored, err := a.cfg.Listeners.Listeners(ctx, account)
	if err != nil {
		return nil, err
	}
	list := []m2m.Listener{}
	for _, l := range stored {
		shown := m2m.Listener{AccountName: string(l.Account), ServiceName: l.Service, URL: l.URL, Username: l.Username}
		if l.Password != "" {
			shown.Password = hidden
		}
		list = append(list, shown)
	}
	return list, nil
}

// listenersOf is the listeners as the caller changes them.
func (a *API) listenersOf(c *call) Listeners {
	if a.cfg.ListenersAs == nil {
		return a.cfg.Listeners
	}
	return a.cfg.ListenersAs(license.Actor{Name: c.User, Via: license.ViaAPI, From: c.address()})
}

// register registers a listener, in place of the service's present one.
func (a *API) register(ctx context.Context, c *call, in m2m.ListenerRequest) (m2m.ListenerAnswer, error) {
	account, err := c.Account(c.r.PathValue("account"))
	if err != nil {
		return m2m.ListenerAnswer{}, accountError(err)
	}
	if err := a.checkListener(ctx, in); err != nil {
		return m2m.ListenerAnswer{}, err
	}
	err = a.listenersOf(c).PutListener(ctx, license.Listener{
		Account: account, Service: in.Name, URL: in.URL, Username: in.Username, Password: in.Password,
	}, a.cfg.Clock.Now())
	if err != nil {
		return m2m.ListenerAnswer{}, err
	}
	return m2m.ListenerAnswer{AccountName: string(account), ServiceName: in.Name}, nil
}

// deregister removes the listener of a service.
func (a *API) deregister(ctx context.Context, c *call, _ struct{}) (m2m.ListenerAnswer, error) {
	account, err := c.Account(c.r.PathValue("account"))
	if err != nil {
		return m2m.ListenerAnswer{}, accountError(err)
	}
	service := c.r.PathValue("service")
	if !slices.Contains(services(), service) {
		return m2m.ListenerAnswer{}, listenerError(service, license.ErrNotFound)
	}
	if err := a.listenersOf(c).DeleteListener(ctx, account, service); err != nil {
		return m2m.ListenerAnswer{}, listenerError(service, err)
	}
	return m2m.ListenerAnswer{AccountName: string(account), ServiceName: service}, nil
}

// maxURL and maxCredential are the longest URL, user name and password of a
// listener, in characters.
const (
	maxURL        = 2048
	maxCredential = 40
)

func (a *API) checkListener(ctx context.Context, in m2m.ListenerRequest) error {
	if !slices.Contains(services(), in.Name) {
		return &license.InputError{Field: license.FieldService, Value: in.Name, Reason: "there is no such service"}
	}
	host, port, reason := checkURL(in.URL)
	if reason == "" && a.cfg.CheckURLHost != nil {
		if err := a.cfg.CheckURLHost(ctx, host, port); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			reason = strings.TrimSuffix(err.Error(), ".")
		}
	}
	if reason != "" {
		return &license.InputError{Field: license.FieldURL, Value: in.URL, Reason: reason}
	}
	for _, s := range []string{in.Username, in.Password} {
		if utf8.RuneCountInString(s) > maxCredential {
			return &license.InputError{Field: license.FieldCredential, Reason: "a user name or password has at most " + strconv.Itoa(maxCredential) + " characters"}
		}
		if strings.IndexFunc(s, unicode.IsControl) >= 0 {
			return &license.InputError{Field: license.FieldCredential, Reason: "a user name or password has no control characters"}
		}
	}
	return nil
}

// checkURL looks at the form of a listener's URL: its host and port, or the reason
// why it is refused.
func checkURL(s string) (host string, port uint16, reason string) {
	if s == "" {
		return "", 0, "it is required"
	}
	if utf8.RuneCountInString(s) > maxURL {
		return "", 0, "it has more than " + strconv.Itoa(maxURL) + " characters"
	}
	u, err := url.Parse(s)
	if err != nil || strings.ContainsFunc(s, unicode.IsSpace) {
		return "", 0, "it cannot be read"
	}
	text := u.Port()
	if text == "" {
		text = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	number, portErr := strconv.ParseUint(text, 10, 16)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", 0, "it must begin with http:// or https://"
	case u.User != nil:
		return "", 0, "it may not hold a user name or password"
	case strings.Contains(s, "#"):
		return "", 0, "it may not have a fragment"
	case u.Hostname() == "":
		return "", 0, "it has no host"
	case portErr != nil || number == 0:
		return "", 0, "its port is not between 1 and 65535"
	}
	return u.Hostname(), uint16(number), ""
}
