// Package m2m speaks the "SIM-Secure for IoT" license API of the ThingSpace
// platform: its wire types, its error codes, a client and a receiver of its
// callbacks. It works against Simlatch and against any server that speaks the
// same API, and uses the standard library only.
//
// # Manual
//
// A [Client] is made once and shared. It fetches the OAuth2 token, opens the
// session, and renews both when they expire:
//
//	c, err := m2m.New(m2m.Config{
//		BaseURL: "https://simlatch.example.com",
//		Key:     key, Secret: secret,
//		Username: user, Password: password,
//	})
//
// There is one method for each endpoint. A user with one account may leave its
// name out of a [LicenseRequest], but not out of a path.
//
// # Licenses
//
// [Client.Assign] and [Client.Unassign] return the id of an accepted request,
// which has set a license aside for each of its devices. How each device ended
// comes later: as one [CallbackMessage] per device, to the account's listener.
// [Client.RequestStatus] tells how the request stands as a whole, and
// [Client.Wait] waits for its end. [Client.Plan] asks Simlatch what a request
// would do, device by device; no other server is ever sent such a request.
//
// # Errors
//
// A request that is refused as a whole has changed nothing. Its error is an
// [*Error], to be compared by errors.Is:
//
//	switch {
//	case errors.Is(err, m2m.ErrInsufficientLicense): // buy more
//	case errors.Is(err, m2m.ErrLicenseHeld):         // unassign first
//	case errors.Is(err, m2m.ErrUnavailable):         // try again later
//	}
//
// The comparison leaves out the service that begins a code, as the reference
// advises; [Error.Is] has the details. [CallbackMessage.Err] makes the same kind
// of error of a callback. Any other error is one of the network, of the context,
// or an answer that makes no sense.
//
// # Retries
//
// A call is repeated by itself, at most [Config.Retries] times, when that is safe
// and of use: after 429 and 503, honouring Retry-After up to half a minute, and
// after a connection that broke. Assign and Unassign send an Idempotency-Key, the
// same with each repetition, under which Simlatch does the work once, whatever
// the network did. It is a new one for each call. A program that must survive its
// own crash stores a key before it calls, gives it with [WithIdempotencyKey], and
// calls again with the same one. Servers that know no such key may carry out a
// request twice whose answer was lost; [ErrLicenseHeld] is then what the second
// one is told.
//
// # Callbacks
//
// [CallbackHandler] turns a function into a listener. [WithSigningSecret] and
// [WithCredentials] refuse what was not sent by the server. A message may come
// twice: the request's id and the ICCID tell. It is registered by
// [Client.RegisterListener] for [CarrierService].
//
// # Large inventories
//
// [Client.Devices] goes through any number of devices, page by page, in a range
// loop.
//
// # Tests
//
// Package m2mtest gives a test a whole Simlatch with a simulated carrier. The
// examples below run against one.
//
// Section numbers in this package refer to docs/thingspace-api.md, where every
// published fact about the reference API is collected.
package m2m
