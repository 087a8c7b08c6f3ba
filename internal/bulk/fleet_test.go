package bulk_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/m2m"
)

const (
	iccidA, imeiA = "89148000000000000012", "490154203237518"
	iccidB, imeiB = "89148000000000000020", "490154203237526"
)

// both is what every well-formed file of TestReadFleet says.
var both = iccidA + "/" + imeiA + " " + iccidB + "/" + imeiB

func said(f *bulk.Fleet) string {
	var rows []string
	for _, r := range f.Rows {
		rows = append(rows, r.ICCID+"/"+r.IMEI)
	}
	return strings.Join(rows, " ")
}

// TestReadFleet reads files as programs write them.
func TestReadFleet(t *testing.T) {
	plain := "iccid,imei\n" + iccidA + "," + imeiA + "\n" + iccidB + "," + imeiB + "\n"
	semicolons := strings.ReplaceAll(plain, ",", ";")
	var wide []byte
	for _, u := range utf16.Encode([]rune("\ufeff" + strings.ReplaceAll(plain, ",", "\t"))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	for _, c := range []struct{ name, text string }{
		{"plain", plain},
		{"no last line end", strings.TrimSuffix(plain, "\n")},
		{"byte order mark, CRLF", "\ufeff" + strings.ReplaceAll(plain, "\n", "\r\n")},
		{"CR alone", strings.ReplaceAll(plain, "\n", "\r")},
		{"semicolons", semicolons},
		{"sep=", "sep=;\r\n" + semicolons},
		{"tabs, in UTF-16", string(wide)},
		{"columns in another order and case, and others", "Site,IMEI ,\" Icc-Id\",note\n" +
			"\"North, gate\"," + imeiA + "," + iccidA + ",\nSouth," + imeiB + "," + iccidB + ",\"two\nlines\"\n"},
		{"separators in the titles' quotes", "\"a;b;c\",iccid,imei\n1," + iccidA + "," + imeiA + "\n2," + iccidB + "," + imeiB + "\n"},
		{"blank lines", "\n" + strings.ReplaceAll(plain, "\n", "\n,\n\n")},
		{"spaces and apostrophes", "iccid,imei\n' " + iccidA + "\u00a0,\t" + imeiA + "\n '" + iccidB + "," + imeiB + " \n"},
		{"formulas", "iccid;imei\n=\"" + iccidA + "\";=\"" + imeiA + "\"\n\"=\"\"" + iccidB + "\"\"\";" + imeiB + "\n"},
		{"short lines' last cells are other columns", "iccid,imei,x,y\n" + iccidA + "," + imeiA + "\n" + iccidB + "," + imeiB + ",1\n"},
		{"names in another encoding", "iccid,imei,site\n" + iccidA + "," + imeiA + ",M\xfcnchen\n" + iccidB + "," + imeiB + ",x\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := bulk.ReadFleet(strings.NewReader(c.text), "f.csv")
			if err != nil {
				t.Fatal(err)
			}
			if said(f) != both || f.Bad() != 0 {
				t.Errorf("read %s with %d bad (%+v)\nwant %s", said(f), f.Bad(), f.Rows, both)
			}
		})
	}
}

func TestReadFleetOneColumn(t *testing.T) {
	for title, want := range map[string]string{"ICCID": iccidA + "/", "imei": "/" + imeiA} {
		id := strings.Trim(want, "/")
		f, err := bulk.ReadFleet(strings.NewReader(title+"\n"+id+"\n"), "f.csv")
		if err != nil || said(f) != want || f.Bad() != 0 {
			t.Errorf("ReadFleet of a column %s = %+v, %v", title, f, err)
		}
	}
}

// TestReadFleetRefuses: files of which nothing can be made.
func TestReadFleetRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "f.csv:1: it is empty; the first line must name the columns"},
		{"iccid,imei\n", "there is nothing below its first line"},
		{iccidA + "," + imeiA + "\n", "f.csv:1: the first line must name the columns, and this one is data: put a line \"iccid,imei\" above it"},
		{"sim,device\n1,2\n", "f.csv:1: there is no column iccid or imei; its columns are sim, device"},
		{"iccid,imei,ICCID\n1,2,3\n", `f.csv:1: the columns "iccid" and "ICCID" say the same`},
		{"PK\x03\x04 and so on", "f.csv: it is a spreadsheet (.xlsx or .ods), not a CSV file: save it as CSV"},
		{"iccid\n8\x009\n", "f.csv: it is no text"},
		{"iccid,site\n" + iccidA + ",a \"b\" c\n", "f.csv:2: column "},
	} {
		if f, err := bulk.ReadFleet(strings.NewReader(c.text), "f.csv"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadFleet(%q) = %+v, %v; want %q", c.text, f, err, c.want)
		}
	}
}

// TestBadRows: what is wrong with a row is said, with what to do.
func TestBadRows(t *testing.T) {
	for _, c := range []struct{ iccid, imei, column, want string }{
		{"8.91E+19", imeiA, "ICCID", `"8.91E+19" is a number as a spreadsheet shows it, and the digits behind are lost: take the file`},
		{"8,9148E+19", imeiA, "ICCID", "format the column as text"},
		{"89148000000000000000.0", imeiA, "ICCID", "keeps 15 to 17 digits"},
		{iccidA, "490154203237518.0", "IMEI", "write 490154203237518"},
		{iccidA, "4.90154E+14", "IMEI", "format the column as text"},
		{"########", imeiA, "ICCID", "widen the column"},
		{"", imeiA, "ICCID", "the ICCID is missing"},
		{iccidA, "", "IMEI", "the IMEI is missing"},
		{"8914800000000000001F", imeiA, "ICCID", "write 8914800000000000001"},
		{"8914 8000 0000 0000 0012", imeiA, "ICCID", "write " + iccidA},
		{"89148OOO000000000012", imeiA, "ICCID", `has 'O' at place 6, and an ICCID has digits only`},
		{"٨٩١٤٨٠٠٠٠٠٠٠٠٠٠٠٠٠٠١", imeiA, "ICCID", "has digits only"},
		{"891480000000000", imeiA, "ICCID", "has 15 digits, and an ICCID has 18 to 20: some are missing"},
		{iccidA + "1", imeiA, "ICCID", "has 21 digits"},
		{iccidA, "49015420323751", "IMEI", "with its check digit it is 490154203237518"},
		{iccidA, "4901542032375112", "IMEI", "this is an IMEISV; its IMEI is 490154203237518"},
		{iccidA, "10000000000002", "IMEI", ""},
	} {
		text := fmt.Sprintf("Note;IMEI;ICCID\r\nx;%s;%s\r\n", c.imei, c.iccid)
		f, err := bulk.ReadFleet(strings.NewReader(text), "f.csv")
		if err != nil {
			t.Fatal(err)
		}
		r := f.Rows[0]
		if r.Line != 2 || r.Column != c.column || r.Code != m2m.CodeIdentifierInvalid || !strings.Contains(r.Message, c.want) {
			t.Errorf("%s/%s: %+v, want %q", c.iccid, c.imei, r, c.want)
		}
	}
}

func TestBadRowsAmongOthers(t *testing.T) {
	f, err := bulk.ReadFleet(strings.NewReader("iccid,imei\n"+iccidA+","+imeiA+"\n"+iccidA+","+imeiA+"\n"+iccidA+","+imeiB+"\n"+iccidB+","+imeiA+",,7\n"), "f.csv")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"", "the ICCID stands on line 2 already", "the ICCID stands on line 2 already, with another IMEI: one of the two is wrong",
		"the line has more cells than the first one",
	} {
		if r := f.Rows[i]; r.OK() != (want == "") || !strings.HasPrefix(r.Message, want) {
			t.Errorf("line %d: %+v, want %q", i+2, r, want)
		}
	}

	// One ICCID may end in zeros; many were rounded.
	one, err := bulk.ReadFleet(strings.NewReader("iccid\n89148000000012300000\n"+iccidA+"\n"), "f.csv")
	if err != nil || one.Bad() != 0 {
		t.Errorf("one ICCID with zeros: %+v, %v", one, err)
	}
	many, err := bulk.ReadFleet(strings.NewReader("iccid\n89148000000012300000\n89148000000012400000\n"+iccidA+"\n"), "f.csv")
	if err != nil || many.Bad() != 2 || !strings.Contains(many.Rows[0].Message, "a spreadsheet has rounded it") {
		t.Errorf("two ICCIDs with zeros: %+v, %v", many, err)
	}
}

func TestDevices(t *testing.T) {
	f := bulk.Devices([]string{iccidA, imeiB, imeiA + "," + iccidB, "12"})
	want := iccidA + "/ /" + imeiB + " " + iccidB + "/" + imeiA + " 12/"
	if said(f) != want || f.Bad() != 1 || f.Rows[3].OK() {
		t.Errorf("Devices = %+v, want %s, the last of them bad", f.Rows, want)
	}
}

// FuzzReadFleet: whatever a file holds, the rows that are good are right.
func FuzzReadFleet(f *testing.F) {
	f.Add([]byte("iccid,imei\n" + iccidA + "," + imeiA + "\n"))
	f.Add([]byte("\ufeffIMEI;x;ICCID\r\n=\"1\";\"a\"\"b\";8.91E+19\r\n"))
	f.Add([]byte("\xff\xfei\x00m\x00e\x00i\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		fleet, err := bulk.ReadFleet(strings.NewReader(string(text)), "f.csv")
		if err != nil {
			return
		}
		for _, r := range fleet.Rows {
			if r.OK() && (strings.Trim(r.ICCID+r.IMEI, "0123456789") != "" || r.ICCID+r.IMEI == "") {
				t.Errorf("a good row is %+v", r)
			}
		}
	})
}
