package exchange

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed *.txtar
var files embed.FS

// Exchange is one recorded scenario.
type Exchange struct {
	Name        string // of its file, without .txtar
	Title       string
	Text        string // what it shows, beyond the title
	Sources     []string
	Needs       []Need
	User        string // who is logged in, by the name in the seed
	Application string
	Listen      *Listen // a listener to register first; nil: none
	Steps       []Step
}

// Listen is a listener that an exchange wants registered before it begins.
type Listen struct {
	Account            string // the variable that holds the account's name
	Username, Password string
}

// Need is something beyond the API that an exchange stands on. A runner skips
// exchanges that need what its host does not offer.
type Need string

// What exchanges may need.
const (
	// NeedCallbacks: the server can reach the runner's listener.
	NeedCallbacks Need = "callbacks"
	// NeedCarrier: the carrier answers as CarrierAnswers says.
	NeedCarrier Need = "carrier"
	// NeedQuickRetry: callbacks are tried again sooner than Config.Quiet.
	NeedQuickRetry Need = "quick-retry"
	// NeedPrivateRefused: of the private addresses listeners may use loopback
	// only.
	NeedPrivateRefused Need = "private-refused"
	// NeedSimlatch: what the reference does not have.
	NeedSimlatch Need = "simlatch"
)

// Needs lists every need there is.
func Needs() []Need {
	return []Need{NeedCallbacks, NeedCarrier, NeedQuickRetry, NeedPrivateRefused, NeedSimlatch}
}

// Step is one request with the answer and the callbacks it must have. All texts
// are as in the file, their variables not yet replaced.
type Step struct {
	Name      string
	Vars      map[string]string // of its row in a table of cases
	Request   Request
	Response  Message
	Repeat    bool  // until the response fits
	Listener  []int // statuses the listener answers with from here on; nil: as before
	Callbacks []Callback
	Silence   bool // no further callback may come
}

// Request is what a step sends.
type Request struct {
	Method, Path string
	Headers      []Header
	Body         string
	HasBody      bool
	Chunked      bool
	Hex          bool // Body is hexadecimal
}

// Message is a status (of a response), headers and a body that are expected.
type Message struct {
	Status  int
	Headers []Header
	Body    string // empty: not looked at
}

// Header is one line of a head. Without says that the line forbids the header.
type Header struct {
	Name, Value string
	Without     bool
}

// Callback is a message that must arrive.
type Callback struct {
	Message
	Times  int
	Device string // the device of the seed that ${device.…} stands for; may be empty
}

// Load returns the embedded exchanges in the order of their names.
func Load() ([]Exchange, error) {
	return LoadFS(files)
}

// LoadFS returns the exchanges in the files *.txtar of a directory.
func LoadFS(dir fs.FS) ([]Exchange, error) {
	names, err := fs.Glob(dir, "*.txtar")
	if err != nil {
		return nil, fmt.Errorf("listing exchanges: %w", err)
	}
	var all []Exchange
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("reading an exchange: %w", err)
		}
		x, err := Parse(strings.TrimSuffix(path.Base(name), ".txtar"), text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, x)
	}
	return all, nil
}
