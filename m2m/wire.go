package m2m

import "strings"

// Paths of the API. The reference serves the API under APIPrefix and the token
// endpoints under TokenPrefix (section "Base addresses").
const (
	APIPrefix   = "/api/m2m/v1"
	TokenPrefix = "/api/ts/v1"
)

// SessionHeader carries the session token (section "Headers").
const SessionHeader = "VZ-M2M-Token"

// DryRunHeader asks Simlatch, with the value "true", to check an assign or
// unassign and to change nothing. The reference does not know it.
const DryRunHeader = "Simlatch-Dry-Run"

// ServerHeader is in every answer of Simlatch's API, and in none of the
// reference's: whoever sees it knows that DryRunHeader will be obeyed. Its value
// is the version of what Simlatch adds to the API.
const ServerHeader = "Simlatch-Api"

// Kinds of identifiers. Requests spell them in lower case, callbacks in upper
// case, device lists in lower case but for KindListICCID (sections 1.5, 8.2).
const (
	KindICCID     = "ICCID"
	KindIMEI      = "IMEI"
	KindMDN       = "MDN"
	KindListICCID = "iccId"
)

// DeviceID is one identifier of a device.
type DeviceID struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
}

// Device names one device by its identifiers, IMEI and then ICCID by the
// reference's documentation; any order and either one alone is accepted.
type Device struct {
	DeviceIDs []DeviceID `json:"deviceIds"`
	IPAddress string     `json:"ipAddress,omitempty"` // tolerated, not used
}

// NewDevice names a device by both its identifiers, or by one where the other is
// empty.
func NewDevice(imei, iccid string) Device {
	var d Device
	for _, id := range []DeviceID{{imei, "imei"}, {iccid, "iccid"}} {
		if id.ID != "" {
			d.DeviceIDs = append(d.DeviceIDs, id)
		}
	}
	return d
}

// ICCID is the device's ICCID; empty where it has none. IMEI is alike.
func (d Device) ICCID() string { return identifier(d.DeviceIDs, KindICCID) }

// IMEI is the device's IMEI; see ICCID.
func (d Device) IMEI() string { return identifier(d.DeviceIDs, KindIMEI) }

// identifier finds an identifier by its kind, of which there is no one spelling.
func identifier(ids []DeviceID, kind string) string {
	for _, id := range ids {
		if strings.EqualFold(id.Kind, kind) {
			return id.ID
		}
	}
	return ""
}

// LicenseRequest is the body of assign and unassign (sections 1.1 and 2.1).
type LicenseRequest struct {
	AccountName string   `json:"accountName,omitempty"`
	SKUNumber   string   `json:"skuNumber"`
	Devices     []Device `json:"devices"`

	// Not supported; present so that a request which names one is refused as
	// documented (section 1.6).
	GroupName       string `json:"groupName,omitempty"`
	DeviceGroupName string `json:"deviceGroupName,omitempty"`
}

// RequestAccepted is the answer to an accepted assign or unassign (section 1.4).
type RequestAccepted struct {
	RequestID string `json:"requestId"`
}

// SubscriptionsRequest is the body of the list of license pools (section 3).
type SubscriptionsRequest struct {
	AccountName string `json:"accountName,omitempty"`
	SKUNumber   string `json:"skuNumber,omitempty"`
}

// Subscriptions is the list of an account's license pools (section 3).
type Subscriptions struct {
	AccountName      string         `json:"accountName"`
	SubscriptionList []Subscription `json:"subscriptionList"`
}

// Subscription is one license pool. LicenseAvailable counts neither assigned
// licenses nor those reserved by a pending assignment.
type Subscription struct {
	SKUNumber        string `json:"skuNumber"`
	LicenseType      string `json:"licenseType"`
	LicensePurchased int64  `json:"licensePurchased"`
	LicenseAssigned  int64  `json:"licenseAssigned"`
	LicenseAvailable int64  `json:"licenseAvailable"`
}

// TokenAnswer is the answer of the token endpoint (section 4.1).
type TokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// RevokeAnswer is the answer of the revocation endpoint (section 4.2). The
// reference answers with a header only.
type RevokeAnswer struct {
	Revoked bool `json:"revoked"`
}

// LoginRequest is the body of a session login (section 5.1).
type LoginRequest struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// SessionAnswer answers login and logout (section 5.1).
type SessionAnswer struct {
	SessionToken string `json:"sessionToken"`
	ExpiresIn    int64  `json:"expiresIn,omitzero"` // seconds of idleness, at login
}

// PasswordReset is the body of a password reset, PasswordAnswer its answer
// (section 5.1).
type PasswordReset struct {
	OldPassword string `json:"oldPassword"`
}

// PasswordAnswer holds the new password, which takes effect at once.
type PasswordAnswer struct {
	NewPassword string `json:"newPassword"`
}

// ListenerRequest registers a callback listener (section 6.1).
type ListenerRequest struct {
	Name     string `json:"name"` // the service, such as CarrierService
	URL      string `json:"url"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// ListenerAnswer answers the registration and deregistration of a listener.
type ListenerAnswer struct {
	AccountName string `json:"accountName"`
	ServiceName string `json:"serviceName"`
}

// Listener is one entry of the list of listeners (section 6.1). Simlatch shows
// a password as "********".
type Listener struct {
	AccountName string `json:"accountName"`
	ServiceName string `json:"serviceName"`
	URL         string `json:"url"`
	Username    string `json:"username"`
	Password    string `json:"password"`
}

// Statuses of a request. Note "Failure" here and "Failed" in a callback.
const (
	StatusPending = "Pending"
	StatusSuccess = "Success"
	StatusFailure = "Failure"
)

// RequestStatus is the status of a request: StatusPending until the carrier has
// answered for every device, then StatusSuccess if all succeeded, or else
// StatusFailure (section 7).
type RequestStatus struct {
	RequestID string `json:"requestId"`
	Status    string `json:"status"`
}

// Account describes an account (section 8.1).
type Account struct {
	AccountName           string        `json:"accountName"`
	AccountNumber         string        `json:"accountNumber"`
	OrganizationName      string        `json:"organizationName"`
	IsProvisioningAllowed bool          `json:"isProvisioningAllowed"`
	Carriers              []string      `json:"carriers"`
	Features              []string      `json:"features"`
	IPPools               []IPPool      `json:"iPPools"`
	ServicePlans          []ServicePlan `json:"servicePlans"`
}

// IPPool is an IP pool of an account.
type IPPool struct {
	PoolName      string `json:"poolName"`
	PoolType      string `json:"poolType"`
	IsDefaultPool bool   `json:"isDefaultPool"`
}

// ServicePlan is a service plan of an account.
type ServicePlan struct {
	Name                   string      `json:"name"`
	Code                   string      `json:"code"`
	SizeKB                 int64       `json:"sizeKb"`
	CarrierServicePlanCode string      `json:"carrierServicePlanCode"`
	ExtendedAttributes     []Attribute `json:"extendedAttributes"`
}

// Attribute is a named value.
type Attribute struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

// DeviceListRequest is the body of the list of devices (section 8.2).
type DeviceListRequest struct {
	AccountName         string        `json:"accountName,omitempty"`
	DeviceID            *DeviceID     `json:"deviceId,omitempty"`
	DeviceList          []DeviceID    `json:"deviceList,omitempty"`
	CurrentState        string        `json:"currentState,omitempty"`
	Filter              *DeviceFilter `json:"filter,omitempty"`
	CustomFields        []Attribute   `json:"customFields,omitempty"`
	GroupName           string        `json:"groupName,omitempty"`
	ServicePlan         string        `json:"servicePlan,omitempty"`
	CarrierNameFilter   string        `json:"carrierNameFilter,omitempty"`
	Earliest            string        `json:"earliest,omitempty"` // RFC 3339
	Latest              string        `json:"latest,omitempty"`   // RFC 3339
	MaxNumberOfDevices  int64         `json:"maxNumberOfDevices,omitempty"`
	LargestDeviceIDSeen int64         `json:"largestDeviceIdSeen,omitempty"`
}

// DeviceFilter narrows a list of devices by parts of their identifiers.
type DeviceFilter struct {
	DeviceIdentifierFilters []DeviceIdentifierFilter `json:"deviceIdentifierFilters,omitempty"`
}

// DeviceIdentifierFilter selects devices by a part of one identifier.
type DeviceIdentifierFilter struct {
	Kind       string `json:"kind"`
	Contains   string `json:"contains,omitempty"`
	StartsWith string `json:"startswith,omitempty"`
	EndsWith   string `json:"endswith,omitempty"`
}

// DeviceList is one page of devices; status 202 and HasMoreData say that there
// are more (section 8.2).
type DeviceList struct {
	HasMoreData bool         `json:"hasMoreData"`
	Devices     []DeviceInfo `json:"devices"`
}

// DeviceInfo describes one device of a list. The extended attribute "DeviceId"
// is the number to page by with LargestDeviceIDSeen.
type DeviceInfo struct {
	AccountName         string               `json:"accountName"`
	CarrierInformations []CarrierInformation `json:"carrierInformations"`
	Connected           bool                 `json:"connected"`
	CreatedAt           string               `json:"createdAt"`
	CustomFields        []Attribute          `json:"customFields"`
	DeviceIDs           []DeviceID           `json:"deviceIds"`
	ExtendedAttributes  []Attribute          `json:"extendedAttributes"`
	GroupNames          []string             `json:"groupNames"`
	IPAddress           string               `json:"ipAddress"`
}

// ICCID is the device's ICCID; empty where it has none. IMEI and MDN are alike.
func (d DeviceInfo) ICCID() string { return identifier(d.DeviceIDs, KindICCID) }

// IMEI is the device's IMEI; see ICCID.
func (d DeviceInfo) IMEI() string { return identifier(d.DeviceIDs, KindIMEI) }

// MDN is the device's number; see ICCID.
func (d DeviceInfo) MDN() string { return identifier(d.DeviceIDs, KindMDN) }

// State is the device's state, such as "active"; empty where it has none.
func (d DeviceInfo) State() string {
	if len(d.CarrierInformations) == 0 {
		return ""
	}
	return d.CarrierInformations[0].State
}

// CarrierInformation is what the carrier says of a device.
type CarrierInformation struct {
	CarrierName string `json:"carrierName"`
	ServicePlan string `json:"servicePlan"`
	State       string `json:"state"`
}

// Plan answers a dry run (DryRunHeader): what an assign or unassign would do.
type Plan struct {
	DryRun      bool         `json:"dryRun"`
	AccountName string       `json:"accountName"`
	SKUNumber   string       `json:"skuNumber"`
	Action      string       `json:"action"`
	Accepted    bool         `json:"accepted"` // whether the request as a whole would be
	Pool        PlanPool     `json:"pool"`
	Devices     []PlanDevice `json:"devices"` // in the order of the request
}

// PlanPool is the pool before the request and after all its devices succeeded.
type PlanPool struct {
	Before Subscription `json:"before"`
	After  Subscription `json:"after"`
}

// PlanDevice is what would become of one device.
type PlanDevice struct {
	DeviceIDs    []DeviceID `json:"deviceIds"`
	Outcome      string     `json:"outcome"` // PlanOK or PlanRefused
	ErrorCode    string     `json:"errorCode,omitempty"`
	ErrorMessage string     `json:"errorMessage,omitempty"`
}

// Outcomes of a device in a Plan.
const (
	PlanOK      = "ok"
	PlanRefused = "refused"
)

// ICCID is the device's ICCID, if it was named by that. IMEI is alike.
func (d PlanDevice) ICCID() string { return identifier(d.DeviceIDs, KindICCID) }

// IMEI is the device's IMEI; see ICCID.
func (d PlanDevice) IMEI() string { return identifier(d.DeviceIDs, KindIMEI) }

// Err is why the device would be refused, to be compared by errors.Is; nil where
// it would not.
func (d PlanDevice) Err() error {
	if d.Outcome == PlanOK {
		return nil
	}
	return &Error{Code: d.ErrorCode, Message: d.ErrorMessage}
}

// CallbackMessage is what a listener receives, one for each device of a request
// (sections 1.5 and 6.4).
type CallbackMessage struct {
	Username             string          `json:"username,omitempty"`
	Password             string          `json:"password,omitempty"`
	RequestID            string          `json:"requestId"`
	DeviceIDs            []DeviceID      `json:"deviceIds"` // ICCID, MDN when known, IMEI
	DeviceResponse       *DeviceResponse `json:"deviceResponse,omitempty"`
	FaultResponse        *FaultResponse  `json:"faultResponse,omitempty"`
	Comment              string          `json:"comment"`
	Status               string          `json:"status"` // CallbackSuccess or CallbackFailed
	CallbackCount        int             `json:"callbackCount"`
	MaxCallbackThreshold int             `json:"maxCallbackThreshold"`
}

// ICCID is that of the callback's device; empty where it has none. IMEI and MDN
// are alike.
func (m *CallbackMessage) ICCID() string { return identifier(m.DeviceIDs, KindICCID) }

// IMEI is that of the callback's device; see ICCID.
func (m *CallbackMessage) IMEI() string { return identifier(m.DeviceIDs, KindIMEI) }

// MDN is that of the callback's device; see ICCID.
func (m *CallbackMessage) MDN() string { return identifier(m.DeviceIDs, KindMDN) }

// Statuses of a callback. Note "Failed" here and "Failure" in a RequestStatus.
const (
	CallbackSuccess = "Success"
	CallbackFailed  = "Failed"
)

// DeviceResponse is the part of a callback that says what succeeded.
type DeviceResponse struct {
	DeviceSKUSubscriptionResponse SKUSubscriptionResponse `json:"deviceSkuSubscriptionResponse"`
}

// SKUSubscriptionResponse says what was done: Action is "Assign" or "Unassign".
type SKUSubscriptionResponse struct {
	AccountName string `json:"accountName"`
	SKUNumber   string `json:"skuNumber"`
	Action      string `json:"action"`
}

// FaultResponse is the part of a callback that says why a device failed.
type FaultResponse struct {
	FaultCode   string `json:"faultcode"`
	FaultString string `json:"faultstring"`
}
