package inventory

import (
	"bytes"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// FuzzCSV reads files of any kind: a SIM that is read has identifiers that the
// domain knows, and stands on a line of the file; a file with a bad line is
// refused by the reader that takes none.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("imei,iccid,account\n358240050000099,89148010000000000999,0000123456-00001\n"))
	f.Add([]byte("\xef\xbb\xbf ICCID , IMEI,state,generation,mdn,imsi\r\n\"89148010000000000999\",35824005000009,suspend,3g,5551230001,310150123456789\r\n,\r\n"))
	f.Add([]byte("imei,iccid\n\"1\n2\",3\n4\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		const most = 1000
		lines := bytes.Count(file, []byte("\n")) + 1
		bad := 0
		lenient := &Reader{Name: "f", Account: "0000123456-00001", Bad: func(line int, err error) bool {
			bad++
			if line < 2 || line > lines || err == nil {
				t.Errorf("line %d of %d is bad: %v", line, lines, err)
			}
			return bad < most
		}}
		good := 0
		var whole error
		for sim, err := range lenient.Read(bytes.NewReader(file)) {
			if whole = err; err != nil {
				break
			}
			good++
			if at := lenient.Line(); at < 2 || at > lines {
				t.Errorf("a SIM on line %d of %d", at, lines)
			}
			if _, err := license.ParseICCID(string(sim.Device.ICCID)); err != nil || len(sim.Device.IMEI) != 15 || sim.Account == "" {
				t.Errorf("read %+v: %v", sim, err)
			}
			if strings.Trim(string(sim.Device.MDN), "+0123456789") != "" {
				t.Errorf("the number %q", sim.Device.MDN)
			}
		}
		strict := &Reader{Name: "f", Account: "0000123456-00001"}
		var refused error
		for _, err := range strict.Read(bytes.NewReader(file)) {
			refused = err
		}
		if (refused == nil) != (bad == 0 && whole == nil) {
			t.Errorf("%d good lines, %d bad, %v; without Bad: %v", good, bad, whole, refused)
		}
	})
}
