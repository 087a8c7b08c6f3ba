package api

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
)

// Malformed is the answer to what is so little HTTP that no request came of it:
// the status to send in the place of the HTTP server's own, and the body.
func Malformed(status int) (int, []byte) {
	e := errorBody{Code: codeMalformed, Message: "The request is not valid HTTP/1.1."}
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		e.Message = "The headers of the request are too large."
	case http.StatusExpectationFailed:
		e.Message = "The expectation of the request is not known."
	default: // 501 and 505 too: it is the client that is wrong
		status = http.StatusBadRequest
	}
	body, err := json.Marshal(e)
	if err != nil { // it has nothing but the strings above
		panic(fmt.Sprintf("encoding an error: %v", err))
	}
	return status, append(body, '\n')
}
