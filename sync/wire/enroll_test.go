package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const activation = Activation("7Q4M-9KX2-TB5D-W8HN")

var enrollments = []struct {
	name string
	body any
}{
	{"enroll", &Enroll{Code: activation, Request: bytes.Repeat([]byte{3}, 160), Software: "posd 0.1.0"}},
	{"enroll_again", &Enroll{Code: activation, Request: bytes.Repeat([]byte{4}, 160), TerminalID: "10000001", Software: "posd 0.1.0"}},
	{"enrolled", &Enrolled{
		TerminalID: "10000001", Merchant: Merchant{ID: "653000053310001", Name: "YUZHONG NOODLES", DisplayName: "渝中小面", MCC: "5411"},
		Certificate: bytes.Repeat([]byte{5}, 300), CA: bytes.Repeat([]byte{6}, 280), URLs: []string{"wss://ledger.example:8602/terminal/v1"},
		Keys:         []Pinned{{Role: "issuer", Public: head, NotBefore: 1_790_000_000, NotAfter: 1_947_680_000}, {Role: "root", Public: head, NotBefore: 1_790_000_000, NotAfter: 1_947_680_000}},
		Confirmation: bytes.Repeat([]byte{7}, 32), News: []News{{Topic: TopicPolicy, Version: 7, Part: 1, Parts: 1, Envelope: sealed}}, Replayed: true,
	}},
	{"renew", &Renew{Request: bytes.Repeat([]byte{8}, 160)}},
	{"renewed", &Renewed{Certificate: bytes.Repeat([]byte{9}, 300)}},
	{"standing", &Standing{TerminalID: "10000001", MerchantID: "653000053310001", NotAfter: 1_853_072_000_000}},
	{"refused", &Refused{Code: RefusedActivation}},
	{"refused_later", &Refused{Code: RefusedBusy, RetryAfterMillis: 4000}},
}

func TestEveryBodyOfEnrolmentIsWrittenAndReadByteForByte(t *testing.T) {
	format, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range enrollments {
		t.Run(g.name, func(t *testing.T) {
			path := filepath.Join("testdata", "enrollment", g.name+".json")
			got, err := json.Marshal(g.body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); *update && os.IsNotExist(err) {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want = bytes.TrimSuffix(want, []byte("\n"))
			if !bytes.Equal(got, want) {
				t.Fatalf("written\n%s\ngolden\n%s", got, want)
			}
			back := reflect.New(reflect.TypeOf(g.body).Elem()).Interface()
			if err := DecodeBody(want, back); err != nil || !reflect.DeepEqual(back, g.body) {
				t.Fatalf("read back %+v %v", back, err)
			}
			for name := range jsonFields(reflect.TypeOf(g.body)) {
				if !bytes.Contains(format, []byte("`"+name+"`")) {
					t.Errorf("FORMAT.md does not explain field %q", name)
				}
			}
		})
	}
}

func TestABodyOfEnrolmentThatIsNoneIsRefusedWithoutTellingIt(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"nothing":       {"", ErrMalformed},
		"a list":        {"[]", ErrMalformed},
		"null":          {"null", ErrMalformed},
		"half":          {`{"code":"` + string(activation), ErrMalformed},
		"a number":      {`{"code":7}`, ErrMalformed},
		"two of them":   {`{"code":"x"}{}`, ErrMalformed},
		"bad base64":    {`{"code":"` + string(activation) + `","request":"%"}`, ErrMalformed},
		"more than all": {`{"code":"` + strings.Repeat("x", MaxEnroll) + `"}`, ErrTooLong},
	} {
		var e Enroll
		if err := DecodeBody([]byte(c.text), &e); !errors.Is(err, c.want) || strings.Contains(err.Error(), string(activation)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnActivationCodeAndTheConfirmationSecretShowTheirLengthOnly(t *testing.T) {
	var out bytes.Buffer
	e, d := Enroll{Code: activation}, Enrolled{Confirmation: []byte("0123456789abcdef0123456789abcdef")}
	fmt.Fprintf(&out, "%v %+v %#v %s %v %+v %#v %s", e, e, e, e.Code, d, d, d, d.Confirmation)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("code", e.Code), slog.Any("secret", d.Confirmation))
	if text := out.String(); strings.Contains(text, string(activation)) || strings.Contains(text, "0123456789") || strings.Contains(text, "48 49 50") || strings.Contains(text, "0x30, 0x31") {
		t.Errorf("leaked: %s", text)
	}
}

func FuzzDecodeBody(f *testing.F) {
	for _, g := range enrollments {
		raw, err := json.Marshal(g.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var e, again Enrolled
		if DecodeBody(data, &e) != nil {
			return
		}
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > MaxEnroll {
			return // escapes may make a body at the limit longer
		}
		if err := DecodeBody(raw, &again); err != nil {
			t.Fatal(err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(raw, second) {
			t.Fatalf("written %s, then %s: %v", raw, second, err)
		}
	})
}
