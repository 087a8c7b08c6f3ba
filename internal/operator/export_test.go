package operator

import "slices"

// Routes lists the routes there are: "GET /accounts", and so on.
func Routes() (list []string) {
	for _, r := range (&API{}).routes() {
		list = append(list, r.method+" "+r.path)
	}
	slices.Sort(list)
	return list
}

// Kinds lists the kinds of problems, by their names.
func Kinds() (names []string) {
	for _, k := range []kind{
		errInvalid, errToken, errRole, errNotFound, errMethod, errSlow, errExists, errInsufficient, errNotEnded, errNoListener,
		errNotStuck, errSelf, errPending, errPrecondition, errTooLarge, errMediaType, errKeyReused, errImport, errUnavailable,
		errNotConfigured, errInternal,
	} {
		names = append(names, k.name)
	}
	return names
}
