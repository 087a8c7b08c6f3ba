package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/inventory"
	"github.com/simlatch/simlatch/internal/license"
)

// Seed is what a seed file says a database should have. It was checked as far
// as it can be without the database and without reading the device files.
type Seed struct {
	path         string
	applications []seedApplication
	users        []seedUser
	accounts     []seedAccount
	devices      []seedDevice
	files        []seedFile
}

type seedApplication struct {
	key    string
	secret auth.Secret
}

type seedUser struct {
	name     string
	password auth.Secret
	accounts []license.AccountName
	line     int
}

type seedAccount struct {
	name  license.AccountName
	pools []license.Purchase
}

type seedDevice struct {
	sim  license.SIM
	line int
}

type seedFile struct {
	path string // as it can be opened
	name string // as the seed says it
	line int
}

// The seed as it is written.
type (
	seedText struct {
		Applications []struct{ Key, Secret text }
		Users        []struct {
			Username, Password text
			Accounts           []text
		}
		Accounts []struct {
			Name  text
			Pools pools
		}
		Devices     []deviceText
		DeviceFiles []text `yaml:"deviceFiles"`
	}
	deviceText struct{ Account, IMEI, ICCID, MDN, IMSI, State, Generation text }

	// text is a scalar as it is written, be it quoted or not: an ICCID
	// without quotes would be a number to YAML.
	text struct {
		value string
		line  int
	}
	pools []pool
	pool  struct{ sku, units text }
)

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	switch {
	case n.Kind != yaml.ScalarNode:
		return fmt.Errorf("line %d: a single value is wanted here", n.Line)
	case n.Tag == "!!null":
		n.Value = ""
	}
	*t = text{value: n.Value, line: n.Line}
	return nil
}

func (p *pools) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: pools are written as {SKU: units}", n.Line)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		var one pool
		if err := errors.Join(one.sku.UnmarshalYAML(n.Content[i]), one.units.UnmarshalYAML(n.Content[i+1])); err != nil {
			return err
		}
		*p = append(*p, one)
	}
	return nil
}

// ReadSeed reads and checks a seed file in YAML or JSON:
//
//	applications: [{key: demo-key, secret: demo-secret}]
//	users: [{username: demo, password: demo-password, accounts: ["0000123456-00001"]}]
//	accounts:
//	  - name: "0000123456-00001"
//	    pools: {SIMSec-IoT: 5000, SIMSec-IoT-Lt: 300}
//	devices:
//	  - {account: "0000123456-00001", imei: "490154203237518", iccid: "89148000000000000012",
//	     mdn: "5551230001", imsi: "", state: active, generation: 4G}
//	deviceFiles: [fleet.csv]   # relative to the seed; see package inventory
//
// An error names the file and the line of what is wrong; warn is told of what
// may be.
func ReadSeed(path string, warn func(warning string)) (*Seed, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(filepath.Ext(path), ".json") {
		// JSON may be indented with tabs, YAML not. A tab inside a string would
		// not be JSON.
		content = bytes.ReplaceAll(content, []byte("\t"), []byte(" "))
	}
	written, err := decodeSeed(bytes.TrimPrefix(content, []byte("\ufeff")))
	if err != nil {
		return nil, atLine(path, err)
	}
	c := seedCheck{path: path, warn: warn, seed: &Seed{path: path}}
	c.check(written)
	if c.err != nil {
		return nil, c.err
	}
	return c.seed, nil
}

func decodeSeed(content []byte) (seedText, error) {
	var written, more seedText
	d := yaml.NewDecoder(bytes.NewReader(content))
	d.KnownFields(true)
	err := d.Decode(&written)
	if errors.Is(err, io.EOF) {
		return written, errors.New("the seed is empty")
	}
	if err != nil {
		return written, err
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return written, errors.New("the seed has more than one document")
	}
	return written, nil
}

// The forms in which the YAML library says where something is wrong.
var (
	yamlLine    = regexp.MustCompile(`line (\d+): `)
	yamlUnknown = regexp.MustCompile(`field (\S+) not found in type .*`)
	yamlType    = regexp.MustCompile(`cannot unmarshal (\S+)( .*)? into .*`)
)

// atLine puts the file and the line before what the YAML library says. Of
// several faults it tells the first.
func atLine(path string, err error) error {
	what := err.Error()
	var types *yaml.TypeError
	if errors.As(err, &types) && len(types.Errors) > 0 {
		what = types.Errors[0]
	}
	what = strings.TrimPrefix(what, "yaml: ")
	where := path
	if m := yamlLine.FindStringSubmatchIndex(what); m != nil {
		where, what = path+":"+what[m[2]:m[3]], what[m[1]:]
	}
	what = yamlUnknown.ReplaceAllString(what, `unknown member "$1"`)
	what = yamlType.ReplaceAllString(what, "a value of another kind is wanted here than $1$2")
	return fmt.Errorf("%s: %s", where, what)
}

// seedCheck turns what is written into a Seed, up to the first fault.
type seedCheck struct {
	path string
	warn func(string)
	seed *Seed
	err  error
}

// fail notes a fault, if it is the first, and reports whether there is one.
func (c *seedCheck) fail(line int, err error) bool {
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("%s:%d: %w", c.path, line, err)
	}
	return c.err != nil
}

func (c *seedCheck) check(w seedText) {
	for _, a := range w.Accounts {
		c.account(a.Name, a.Pools)
	}
	keys, users := map[string]bool{}, map[string]bool{}
	for _, a := range w.Applications {
		c.fail(max(a.Key.line, a.Secret.line), checkName("key", a.Key.value, ":", keys))
		c.fail(a.Key.line, required("secret", a.Secret.value))
		c.seed.applications = append(c.seed.applications, seedApplication{a.Key.value, auth.Secret(a.Secret.value)})
	}
	for _, u := range w.Users {
		c.fail(max(u.Username.line, u.Password.line), checkName("username", u.Username.value, "", users))
		c.fail(u.Username.line, required("password", u.Password.value))
		user := seedUser{name: u.Username.value, password: auth.Secret(u.Password.value), line: u.Username.line}
		for _, a := range u.Accounts {
			name, err := license.ParseAccountName(a.value)
			c.fail(a.line, err)
			user.accounts = append(user.accounts, name)
		}
		c.seed.users = append(c.seed.users, user)
	}
	for _, d := range w.Devices {
		c.device(d)
	}
	for _, f := range w.DeviceFiles {
		c.fail(f.line, required("deviceFiles", f.value))
		file := seedFile{path: f.value, name: f.value, line: f.line}
		if !filepath.IsAbs(file.path) {
			file.path = filepath.Join(filepath.Dir(c.path), file.path)
		}
		c.seed.files = append(c.seed.files, file)
	}
}

func (c *seedCheck) account(name text, pools pools) {
	account, err := license.ParseAccountName(name.value)
	if c.fail(name.line, err) {
		return
	}
	for _, a := range c.seed.accounts {
		if a.name.Folded() == account.Folded() {
			c.fail(name.line, fmt.Errorf("the account %s is there twice (hyphens do not tell accounts apart)", account))
		}
	}
	seen := map[license.SKU]bool{}
	var purchases []license.Purchase
	for _, p := range pools {
		sku, err := license.ParseSKU(p.sku.value)
		if err == nil && seen[sku] {
			err = fmt.Errorf("the pool of %s is there twice", sku)
		}
		seen[sku] = true
		units, notNumber := strconv.ParseInt(p.units.value, 10, 64)
		if err == nil && (notNumber != nil || units < 0) {
			err = &license.InputError{Field: license.FieldUnits, Value: p.units.value, Reason: "a pool has a whole number of licenses, 0 or more"}
		}
		if c.fail(p.sku.line, err) {
			return
		}
		purchases = append(purchases, license.Purchase{Account: account, SKU: sku, Units: units, Reference: "seed", Reason: "created by the seed"})
	}
	c.seed.accounts = append(c.seed.accounts, seedAccount{account, purchases})
}

func (c *seedCheck) device(d deviceText) {
	line := max(d.ICCID.line, d.IMEI.line, d.Account.line)
	sim, err := inventory.Text{
		Account: d.Account.value, IMEI: d.IMEI.value, ICCID: d.ICCID.value, MDN: d.MDN.value,
		IMSI: d.IMSI.value, State: d.State.value, Generation: d.Generation.value,
	}.SIM("", func(warning string) { c.warn(fmt.Sprintf("%s:%d: %s", c.path, line, warning)) })
	if !c.fail(line, err) {
		c.seed.devices = append(c.seed.devices, seedDevice{sim, line})
	}
}

// checkName refuses names that could not be told apart from others or not be
// sent, and those that were seen before.
func checkName(what, name, never string, seen map[string]bool) error {
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(never, r) }
	switch {
	case name == "" || len(name) > 128:
		return fmt.Errorf("a %s must have 1 to 128 characters", what)
	case strings.ContainsFunc(name, bad):
		return fmt.Errorf("the %s %q has a character that cannot be sent: a space, control character%s", what, name,
			strings.ReplaceAll(never, ":", " or colon"))
	case seen[name]:
		return fmt.Errorf("the %s %q is there twice", what, name)
	}
	seen[name] = true
	return nil
}

func required(what, value string) error {
	if value == "" {
		return fmt.Errorf("%s must not be empty", what)
	}
	return nil
}
