package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/m2m"
)

// maxDepth is how deeply the arrays and objects of a body may nest.
const maxDepth = 32

// decodeJSON decodes a body strictly: no member twice, UTF-8 only, one value.
// Unknown members are ignored and names are compared exactly.
func decodeJSON[T any](body []byte) (T, error) {
	var v T
	if blank(body) {
		return v, errBlank()
	}
	if at := tooDeep(body); at >= 0 {
		return v, errUnreadable(fmt.Sprintf("more than %d levels of nesting at byte %d", maxDepth, at))
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, unreadable(err)
	}
	if err := passNames(jsontext.NewDecoder(bytes.NewBuffer(body))); err != nil {
		return v, said(err)
	}
	return v, nil
}

// blank reports whether a body has nothing in it; null is nothing.
func blank(body []byte) bool {
	body = bytes.Trim(body, " \t\r\n")
	return len(body) == 0 || string(body) == "null"
}

// tooDeep is where body nests too deeply, or -1. It need not know whether body
// is valid: what it takes for a bracket in an invalid body does no harm.
func tooDeep(body []byte) int {
	depth, text := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// unreadable says in words what is wrong with a body and where.
func unreadable(err error) error {
	var syntax *jsontext.SyntacticError
	var meaning *json.SemanticError
	switch {
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		return errUnreadable("duplicate member" + place(syntax.JSONPointer, syntax.ByteOffset))
	case errors.As(err, &syntax) && errors.Is(err, io.ErrUnexpectedEOF):
		return errUnreadable("unexpected end" + place(syntax.JSONPointer, syntax.ByteOffset))
	case errors.As(err, &syntax):
		return errUnreadable(printable(syntax.Err.Error()) + place(syntax.JSONPointer, syntax.ByteOffset))
	case errors.As(err, &meaning):
		return errUnreadable("expected " + kindOf(meaning.GoType) + place(meaning.JSONPointer, meaning.ByteOffset))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errUnreadable("unexpected end")
	}
	return errUnreadable("not valid JSON")
}

func place(p jsontext.Pointer, offset int64) string {
	if p == "" {
		return fmt.Sprintf(" at byte %d", offset)
	}
	return fmt.Sprintf(" at %s, byte %d", quote(string(p)), offset)
}

// kindOf names in JSON's words what a Go type is decoded from.
func kindOf(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int64:
		return "an integer"
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Pointer:
		return "an object"
	default:
		return "another type"
	}
}

// licenseBody decodes the body of assign and unassign.
func licenseBody(c *call) (*m2m.LicenseRequest, error) {
	if err := c.readBody("application/json"); err != nil {
		return nil, err
	}
	if blank(c.body) {
		return nil, errBlank()
	}
	return decodeLicense(c.body)
}

// decodeLicense decodes the one body that can be large, token by token: it means
// the same as decodeJSON, in half the time and with hardly an
// allocation. The strings of the result are parts of one copy of the body, its
// identifiers parts of a few large slices.
func decodeLicense(body []byte) (*m2m.LicenseRequest, error) {
	d := licenseDecoder{dec: jsontext.NewDecoder(bytes.NewBuffer(body)), text: string(body)}
	req := &m2m.LicenseRequest{}
	err := d.object(func(name string) (err error) {
		switch name {
		case "accountName":
			req.AccountName, err = d.str()
		case "skuNumber":
			req.SKUNumber, err = d.str()
		case "groupName":
			req.GroupName, err = d.str()
		case "deviceGroupName":
			req.DeviceGroupName, err = d.str()
		case "devices":
			req.Devices, err = d.devices()
		default:
			err = d.skip()
		}
		return err
	})
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, said(err)
	}
	return req, nil
}

// said is an error that says what is wrong with a body.
func said(err error) error {
	var known *wireError
	if errors.As(err, &known) {
		return err
	}
	return unreadable(err)
}

// licenseDecoder reads a license request off a token stream.
type licenseDecoder struct {
	dec  *jsontext.Decoder
	text string         // the whole body
	ids  []m2m.DeviceID // room for the identifiers of devices to come
	few  []m2m.DeviceID // those of the present device
}

// object reads an object, or null, and calls member for each value with its
// name; member must consume the value.
func (d *licenseDecoder) object(member func(name string) error) error {
	if null, err := d.open('{', "an object"); null || err != nil {
		return err
	}
	var seen names
	for d.dec.PeekKind() != '}' {
		name, err := d.str()
		if err != nil {
			return err
		}
		if seen.twice(name) {
			return errTwice(d.dec)
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return err
}

// array reads an array, or null, and calls element for each of its values.
func (d *licenseDecoder) array(element func() error) error {
	if null, err := d.open('[', "an array"); null || err != nil {
		return err
	}
	for d.dec.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return err
}

// open reads the start of an object or array, or null.
func (d *licenseDecoder) open(kind jsontext.Kind, want string) (null bool, err error) {
	tok, err := d.dec.ReadToken()
	if err != nil {
		return false, err
	}
	switch tok.Kind() {
	case kind:
		return false, nil
	case 'n':
		return true, nil
	default:
		return false, d.expected(want)
	}
}

func (d *licenseDecoder) expected(want string) error {
	return errUnreadable("expected " + want + place(d.dec.StackPointer(), d.dec.InputOffset()))
}

// str reads a string, or null for the empty one. Where a name is due it reads
// that; JSON has no other kind of name.
func (d *licenseDecoder) str() (string, error) {
	switch d.dec.PeekKind() {
	case '"', 'n':
	case jsontext.KindInvalid: // an error, which the next read returns
		_, err := d.dec.ReadToken()
		return "", err
	default:
		if _, err := d.dec.ReadToken(); err != nil {
			return "", err
		}
		return "", d.expected("a string")
	}
	v, err := d.dec.ReadValue()
	if err != nil || v.Kind() == 'n' {
		return "", err
	}
	if bytes.IndexByte(v, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, v)
		return string(unquoted), err
	}
	end := int(d.dec.InputOffset())
	return d.text[end-len(v)+1 : end-1], nil
}

func (d *licenseDecoder) devices() ([]m2m.Device, error) {
	// A device takes some hundred bytes, so this rarely grows, and a body full
	// of nothing cannot make it large.
	list := make([]m2m.Device, 0, len(d.text)/100+1)
	err := d.array(func() error {
		list = append(list, m2m.Device{})
		return d.device(&list[len(list)-1])
	})
	return list, err
}

func (d *licenseDecoder) device(dev *m2m.Device) error {
	return d.object(func(name string) (err error) {
		switch name {
		case "deviceIds":
			dev.DeviceIDs, err = d.deviceIDs()
		case "ipAddress":
			dev.IPAddress, err = d.str()
		default:
			err = d.skip()
		}
		return err
	})
}

func (d *licenseDecoder) deviceIDs() ([]m2m.DeviceID, error) {
	d.few = d.few[:0]
	err := d.array(func() error {
		d.few = append(d.few, m2m.DeviceID{})
		return d.deviceID(&d.few[len(d.few)-1])
	})
	if err != nil || len(d.few) == 0 {
		return nil, err
	}
	// What no longer fits starts new room; devices keep what they were given.
	if len(d.ids)+len(d.few) > cap(d.ids) {
		d.ids = make([]m2m.DeviceID, 0, max(len(d.few), min(len(d.text)/50+2, 4096)))
	}
	from := len(d.ids)
	d.ids = append(d.ids, d.few...)
	return slices.Clip(d.ids[from:]), nil
}

func (d *licenseDecoder) deviceID(id *m2m.DeviceID) error {
	return d.object(func(name string) (err error) {
		switch name {
		case "id":
			id.ID, err = d.str()
		case "kind":
			id.Kind, err = d.str()
		default:
			err = d.skip()
		}
		return err
	})
}

// skip reads an unknown value. Only there can a body nest deeply.
func (d *licenseDecoder) skip() error { return passNames(d.dec) }

// end checks that nothing follows.
func (d *licenseDecoder) end() error {
	_, err := d.dec.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errUnreadable(fmt.Sprintf("a second value at byte %d", d.dec.InputOffset()))
}
