package inventory

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// collect reads a sequence up to its first error.
func collect(seq iter.Seq2[license.SIM, error]) (sims []license.SIM, err error) {
	for sim, err := range seq {
		if err != nil {
			return sims, err
		}
		sims = append(sims, sim)
	}
	return sims, nil
}

func read(r io.Reader, name string, account license.AccountName) iter.Seq2[license.SIM, error] {
	d := Reader{Name: name, Account: account}
	return d.Read(r)
}

func TestRead(t *testing.T) {
	const text = "\ufeffGeneration, iccid,MDN,account,imei,State,imsi\r\n" +
		"4g,89148000000000000012,5551230001,0000123456-00001,490154203237518,active,311480000000001\r\n" +
		"\r\n" +
		",89148000000000000020,,,35824005111111,suspend,\r\n"
	got, err := collect(read(strings.NewReader(text), "fleet.csv", "0000123456-00002"))
	if err != nil {
		t.Fatal(err)
	}
	want := []license.SIM{{
		Account: "0000123456-00001",
		Device:  license.Device{ICCID: "89148000000000000012", IMEI: "490154203237518", MDN: "5551230001"},
		IMSI:    "311480000000001", State: license.StateActive, Generation: license.Generation4G,
	}, {
		Account: "0000123456-00002",
		Device:  license.Device{ICCID: "89148000000000000020", IMEI: "358240051111110"},
		State:   license.StateSuspended, Generation: license.Generation4G,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Read: (-want +got)\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	const header = "account,imei,iccid,mdn,state,generation\n"
	const good = "0000123456-00001,490154203237518,89148000000000000012,,active,4G\n"
	for name, test := range map[string]struct{ text, want string }{
		"empty":          {"", "f.csv: the file is empty"},
		"no header":      {good, `f.csv:1: unknown column "0000123456-00001"`},
		"column missing": {"account,imei\n", "f.csv:1: the column iccid is missing"},
		"column twice":   {"imei,iccid,account,IMEI\n", "f.csv:1: the column imei is there twice"},
		"account absent": {header + good + ",490154203237518,89148000000000000012,,active,4G\n", `f.csv:3: account "": the SIM needs an account`},
		"bad account":    {header + "a/b,490154203237518,89148000000000000012,,,\n", `f.csv:2: account "a/b": an account name has`},
		"bad iccid":      {header + good + "\n" + "0000123456-00001,490154203237518,8.91E+19,,,\n", `f.csv:4: iccid "8.91E+19": an ICCID has`},
		"bad imei":       {header + "0000123456-00001,49015420323751,89148000000000000012,,,\n0000123456-00001,4901,89148000000000000012,,,\n", `f.csv:3: imei "4901": an IMEI has`},
		"bad mdn":        {header + "0000123456-00001,490154203237518,89148000000000000012,+1555,,\n", `f.csv:2: mdn "+1555": an MDN has`},
		"bad state":      {header + "0000123456-00001,490154203237518,89148000000000000012,,on,\n", `f.csv:2: state "on": a state is`},
		"bad generation": {header + "0000123456-00001,490154203237518,89148000000000000012,,,6G\n", `f.csv:2: generation "6G": a generation is`},
		"fields missing": {header + good + "0000123456-00001\n", "f.csv:3: wrong number of fields"},
		"open quote":     {header + good + "\"0000\n", `f.csv:`},
		"quote inside":   {header + "0000\"1,490154203237518,89148000000000000012,,,\n", `f.csv:2: bare " in`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := collect(read(strings.NewReader(test.text), "f.csv", ""))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("Read = %v, want an error that begins %q", err, test.want)
			}
		})
	}
}

func TestReaderWarns(t *testing.T) {
	var warnings []string
	r := Reader{Name: "f.csv", Account: "0000123456-00001", Warn: func(w string) { warnings = append(warnings, w) }}
	if _, err := collect(r.Read(strings.NewReader("imei,iccid\n490154203237510,89148000000000000012\n"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"f.csv:2: the check digit of IMEI 490154203237510 should be 8"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings: (-want +got)\n%s", diff)
	}
}

func TestReaderFindsAccounts(t *testing.T) {
	const text = "account,imei,iccid\n" +
		"000012345600001,490154203237518,89148000000000000012\n" +
		"0000123456-00001,490154203237526,89148000000000000020\n" +
		"000012345600001,490154203237534,89148000000000000038\n" +
		"0000999999-00001,490154203237542,89148000000000000046\n"
	asked := 0
	r := Reader{Name: "f.csv", FindAccount: func(a license.AccountName) (license.AccountName, error) {
		asked++
		if a.Folded() != "000012345600001" {
			return "", license.ErrNotFound
		}
		return "0000123456-00001", nil
	}}
	sims, err := collect(r.Read(strings.NewReader(text)))
	if !errors.Is(err, license.ErrNotFound) || !strings.HasPrefix(err.Error(), "f.csv:5: ") {
		t.Errorf("Read = %v, want the fifth line's account not found", err)
	}
	if len(sims) != 3 || sims[0].Account != "0000123456-00001" || sims[2].Account != "0000123456-00001" || asked != 3 {
		t.Errorf("Read = %v after asking %d times, want three SIMs of one account after asking for each name once", sims, asked)
	}
}

func TestReaderLocates(t *testing.T) {
	const text = "account,imei,iccid\n" +
		"0000123456-00001,490154203237518,89148000000000000012\n\n" +
		"0000123456-00001,490154203237526,89148000000000000020\n"
	r := Reader{Name: "f.csv"}
	sims, err := collect(r.Read(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	conflict := &store.ConflictError{SIM: sims[1], Index: 2, Reason: "of the test"}
	if got := r.Locate(fmt.Errorf("importing: %w", conflict)); !strings.HasPrefix(got.Error(), "f.csv:4: ") || !errors.Is(got, conflict) {
		t.Errorf("Locate = %v, want line 4", got)
	}
	if got := r.Locate(license.ErrNotFound); got.Error() != license.ErrNotFound.Error() {
		t.Errorf("Locate = %v, want the error as it was", got)
	}
}
