package exchange

import (
	_ "embed"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

//go:embed seed.yaml
var seed []byte

// Seed is the seed, in the form that "simlatch serve --seed" reads, which the
// embedded exchanges assume. Each exchange uses devices of its own, so one
// server can be asked all of them, once, in any order.
func Seed() []byte { return slices.Clone(seed) }

// seedFile is what Variables reads of a seed.
type seedFile struct {
	Applications []yaml.Node `yaml:"applications"`
	Users        []yaml.Node `yaml:"users"`
	Accounts     []yaml.Node `yaml:"accounts"`
	Devices      []yaml.Node `yaml:"devices"`
}

// Variables are the names and values that a seed gives to exchanges. The word
// in a comment behind an application, a user, an account or a device is its
// name; what it is called there is what the exchanges use, so another server's
// credentials and devices are put into the same form under the same names:
//
//   - {key: demo-key, secret: demo-secret} # app          ${app.key} ${app.secret}
//   - {username: demo, password: p, accounts: […]} # user ${user.name} ${user.password}
//   - name: "0000123456-00001" # account                  ${account}
//   - {…, imei: "1", iccid: "2", mdn: "3"} # d1           ${d1.imei} ${d1.iccid} ${d1.mdn}
//
// An application may have a token that was issued elsewhere, and a user a
// session; they are then used and not asked for: {token: "…"} # app and
// {session: "…"} # user.
func Variables(seed []byte) (map[string]string, error) {
	var f seedFile
	if err := yaml.Unmarshal(seed, &f); err != nil {
		return nil, fmt.Errorf("reading the seed: %w", err)
	}
	vars := map[string]string{}
	for _, n := range f.Applications {
		if err := bind(vars, n, map[string]string{"key": ".key", "secret": ".secret", "token": ".token"}); err != nil {
			return nil, err
		}
	}
	for _, n := range f.Users {
		err := bind(vars, n, map[string]string{"username": ".name", "password": ".password", "session": ".session"})
		if err != nil {
			return nil, err
		}
	}
	for _, n := range f.Accounts {
		if err := bind(vars, n, map[string]string{"name": ""}); err != nil {
			return nil, err
		}
	}
	for _, n := range f.Devices {
		err := bind(vars, n, map[string]string{"imei": ".imei", "iccid": ".iccid", "mdn": ".mdn"})
		if err != nil {
			return nil, err
		}
	}
	return vars, nil
}

// bind adds the fields of a mapping as variables, named after the mapping's
// comment. Without a comment it has no name and gives none.
func bind(vars map[string]string, n yaml.Node, fields map[string]string) error {
	name := commentOf(&n)
	if name == "" {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		suffix, ok := fields[n.Content[i].Value]
		if !ok {
			continue
		}
		if _, taken := vars[name+suffix]; taken {
			return fmt.Errorf("reading the seed: line %d: the name %q is used twice", n.Line, name)
		}
		vars[name+suffix] = n.Content[i+1].Value
	}
	return nil
}

// commentOf is the word in the comment behind a mapping, or behind the first
// value of one that is written over several lines.
func commentOf(n *yaml.Node) string {
	comment := n.LineComment
	if comment == "" && len(n.Content) > 1 {
		comment = n.Content[1].LineComment
	}
	var name string
	if _, err := fmt.Sscanf(comment, "# %s", &name); err != nil {
		return ""
	}
	return name
}

// CarrierAnswer is what the carrier answers about one device, where a host
// offers NeedCarrier. About all others it says yes.
type CarrierAnswer struct {
	ICCID  string
	Action string // "assign" or "unassign"
	// Silent: the carrier never answers. Otherwise it refuses.
	Silent bool
	// Code is the carrier's own code: AlreadyLicensed or empty.
	Code string
	// Comment is the carrier's own text.
	Comment string
}

// AlreadyLicensed is the CarrierAnswer's code of a SIM that has a license the
// server does not know of (behaviour.md 3).
const AlreadyLicensed = "already-licensed"

// CarrierAnswers says which devices of a seed the carrier must not simply agree
// about, so that exchanges that need it can show refusals and silence. vars are
// the seed's Variables.
func CarrierAnswers(vars map[string]string) []CarrierAnswer {
	answers := []struct {
		device string
		answer CarrierAnswer
	}{
		{"refused1", CarrierAnswer{Action: "assign", Comment: "The SIM is blocked."}},
		{"refused2", CarrierAnswer{Action: "assign", Comment: "The SIM is blocked."}},
		{"refused3", CarrierAnswer{Action: "assign", Comment: "The SIM is blocked."}},
		{"refused4", CarrierAnswer{Action: "assign", Comment: "The SIM is blocked."}},
		{"already1", CarrierAnswer{Action: "assign", Code: AlreadyLicensed, Comment: "Licensed elsewhere."}},
		{"kept1", CarrierAnswer{Action: "unassign", Comment: "The SIM cannot be reached."}},
		{"silent1", CarrierAnswer{Action: "assign", Silent: true}},
		{"silent2", CarrierAnswer{Action: "assign", Silent: true}},
		{"silent3", CarrierAnswer{Action: "assign", Silent: true}},
		{"leaving1", CarrierAnswer{Action: "unassign", Silent: true}},
	}
	var all []CarrierAnswer
	for _, a := range answers {
		if iccid := vars[a.device+".iccid"]; iccid != "" {
			a.answer.ICCID = iccid
			all = append(all, a.answer)
		}
	}
	return all
}
