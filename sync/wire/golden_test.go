package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files of new messages")

const (
	trade  = "01JD3Z5W8Q7XKQ4N6T1B9V2M0C"
	refund = "01JD3ZA1B2C3D4E5F6G7H8J9K0"
	ledger = "01JD3Z5X00YUPAYEDGER0000A1"
	epoch  = "01JD3Z00000000000000000000"
	head   = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	online = Code("861234567890123454")
	signed = Code("hQVDUFYwMWGB6g==")
)

var sealed = Envelope{KeyID: "1f2e3d4c", Payload: []byte(`{"version":7}`), Sig: bytes.Repeat([]byte{3}, 64)}

// golden lists one frame for every message as it stands on the line, full and, where fields may be left out, at its
// shortest. A file may only ever be added.
var golden = []struct {
	name   string
	id, re uint64
	body   any
}{
	{"hello", 1, 0, &Hello{TerminalID: "10000001", MerchantID: "653000053310001", Software: "posd 0.1.0", Epoch: epoch, Sequence: 4711, Head: head, NewsCursor: 17}},
	{"welcome", 0, 1, &Welcome{Version: 1, AckedSequence: 4700, AckedHead: head, NewsSequence: 18, Time: 1_790_000_000_123, PingEveryMillis: 5000}},
	{"welcome_first", 0, 1, &Welcome{Version: 1, Time: 1_790_000_000_123, PingEveryMillis: 5000}},
	{"pay", 2, 0, &Pay{TradeNo: trade, Attempt: 1, OutTradeNo: "R-2026-000123", TotalFen: 1250, Subject: "小面 <微辣> & 豆浆", OperatorID: "01", Code: online, ScannedAt: 1_790_000_001_000, NotAfter: 1_790_000_061_000}},
	{"pay_again", 3, 0, &Pay{TradeNo: trade, Attempt: 1, OutTradeNo: "R-2026-000123", TotalFen: 1250, Code: online, ScannedAt: 1_790_000_001_000, NotAfter: 1_790_000_061_000, Repeat: true}},
	{"order", 4, 0, &Order{TradeNo: trade, OutTradeNo: "R-2026-000124", TotalFen: 4_294_967_295, Subject: "小面", OperatorID: "01", ExpiresAt: 1_790_000_180_000, Repeat: true}},
	{"query", 5, 0, &Query{TradeNo: trade}},
	{"query_order", 5, 0, &Query{TradeNo: trade, OutTradeNo: "R-2026-000124"}},
	{"reverse", 6, 0, &Reverse{TradeNo: trade, TotalFen: 1250, Reason: "NO_ANSWER", Repeat: true}},
	{"refund", 7, 0, &Refund{RefundNo: refund, OutRefundNo: "RF-1", TradeNo: trade, RefundFen: 250, Reason: "少一份", OperatorID: "01", Repeat: true}},
	{"anchor", 8, 0, &Anchor{Epoch: epoch, Sequence: 4712, Head: head}},
	{"ack", 9, 0, &Ack{News: 18}},
	{"outcome_success", 0, 2, &Outcome{TradeNo: trade, Attempt: 1, State: StateSuccess, LedgerNo: ledger, TotalFen: 1250, PaidFen: 1150, DiscountFen: 100, FeeFen: 8, PaidAt: 1_790_000_001_400, Replayed: true}},
	{"outcome_declined", 0, 2, &Outcome{TradeNo: trade, Attempt: 1, State: StatePayError, TotalFen: 1250, Reason: "INSUFFICIENT_BALANCE"}},
	{"outcome_not_found", 0, 5, &Outcome{TradeNo: trade, State: StateNotFound}},
	{"outcome_revoked", 0, 6, &Outcome{TradeNo: trade, State: StateRevoked, LedgerNo: ledger, TotalFen: 1250, PaidFen: 1250, PaidAt: 1_790_000_001_400, RefundedFen: 1250, Reason: "NO_ANSWER"}},
	{"refund_outcome", 0, 7, &RefundOutcome{RefundNo: refund, TradeNo: trade, State: RefundSuccess, RefundFen: 250, FeeBackFen: 2, RefundedAt: 1_790_000_100_000, LedgerNo: ledger, RefundedFen: 250, Replayed: true}},
	{"refund_outcome_failed", 0, 7, &RefundOutcome{RefundNo: refund, TradeNo: trade, State: RefundFailed, Reason: "MERCHANT_BALANCE"}},
	{"anchored", 0, 8, &Anchored{Epoch: epoch, Sequence: 4712, Head: head}},
	{"result", 0, 0, &Result{Sequence: 18, Outcome: Outcome{TradeNo: trade, State: StateSuccess, LedgerNo: ledger, TotalFen: 1250, PaidFen: 1250, FeeFen: 8, PaidAt: 1_790_000_001_400}}},
	{"refused", 0, 3, &Refused{Code: RefusedIDReused, Detail: "the same trade_no with another total_fen"}},
	{"hello_2", 1, 0, &Hello{TerminalID: "10000001", MerchantID: "653000053310001", Software: "posd 0.1.0", Epoch: epoch, Sequence: 4711, Head: head, NewsCursor: 17, Version: 2, MinVersion: 1, Have: map[Topic]uint32{TopicDeny: 41, TopicKeys: 3, TopicPolicy: 7}}},
	{"welcome_2", 0, 1, &Welcome{Version: 2, AckedSequence: 4700, AckedHead: head, NewsSequence: 18, Time: 1_790_000_000_123, PingEveryMillis: 5000}},
	{"upload", 10, 0, &Upload{Items: []Acceptance{
		{TradeNo: trade, OutTradeNo: "R-2026-000125", TotalFen: 1250, Subject: "小面", OperatorID: "01", Code: signed, Accept: bytes.Repeat([]byte{1}, 184)},
		{TradeNo: refund, OutTradeNo: "R-2026-000126", TotalFen: 800, Code: signed, Accept: bytes.Repeat([]byte{2}, 184), Withdrawn: true, Repeat: true},
	}}},
	{"uploaded", 0, 10, &Uploaded{Outcomes: []Outcome{
		{TradeNo: trade, State: StateSuccess, LedgerNo: ledger, TotalFen: 1250, PaidFen: 1250, FeeFen: 8, PaidAt: 1_790_000_001_400, Reason: "CODE_SPENT", Bearer: BearerLedger},
		{TradeNo: refund, State: StateRevoked, TotalFen: 800, Reason: "WITHDRAWN", Replayed: true},
		{TradeNo: epoch, State: StateBounced, TotalFen: 20_001, Reason: "POLICY_BREACH", Bearer: BearerMerchant},
	}}},
	{"uploaded_refused", 0, 10, &Uploaded{Outcomes: []Outcome{}, Refused: []RefusedUpload{
		{TradeNo: trade, Code: RefusedIDReused, Detail: "the same trade_no with another code"},
		{TradeNo: refund, Code: RefusedBusy, RetryAfterMillis: 2000},
	}}},
	{"want", 11, 0, &Want{Topic: TopicDeny}},
	{"news", 0, 0, &News{Topic: TopicPolicy, Version: 7, Part: 1, Parts: 1, Envelope: sealed}},
	{"news_part", 0, 11, &News{Topic: TopicDeny, Version: 42, Part: 2, Parts: 3, Envelope: sealed}},
	{"time", 12, 0, &Time{Nonce: []byte("0123456789abcdef")}},
	{"signed_time", 0, 12, &SignedTime{Envelope: sealed}},
	{"anchored_signed", 0, 8, &Anchored{Epoch: epoch, Sequence: 4712, Head: head, Signed: &sealed}},
	{"statement", 13, 0, &Statement{Date: "2026-09-21", Page: 1}},
	{"statement_again", 14, 0, &Statement{Date: "2026-09-21", Version: 2, Page: 3}},
	{"statement_page", 0, 13, &StatementPage{Date: "2026-09-21", Version: 1, Page: 1, Pages: 1, Count: 3, TotalFen: 1000, FeeFen: 6, Lines: []StatementLine{
		{Kind: LinePay, LedgerNo: ledger, TradeNo: trade, OutTradeNo: "R-2026-000125", TotalFen: 1250, PaidFen: 1150, FeeFen: 8, At: 1_790_000_001_400, Path: "offline", Bearer: BearerLedger},
		{Kind: LineRefund, LedgerNo: refund, TradeNo: trade, RefundNo: refund, TotalFen: 250, PaidFen: 250, FeeFen: 2, At: 1_790_000_100_000},
		{Kind: LineReverse, LedgerNo: ledger, TradeNo: epoch, At: 1_790_000_200_000},
	}}},
	{"statement_page_empty", 0, 13, &StatementPage{Date: "2026-09-21", Version: 1, Page: 1, Lines: []StatementLine{}}},
	{"maintenance", 0, 0, &Maintenance{StartsAt: 1_790_000_300_000, RetryAfterMillis: 600_000, TextZH: "账本维护十分钟，请稍候", TextEN: "The ledger is closed for ten minutes"}},
	{"refused_version", 0, 1, &Refused{Code: RefusedVersion, Detail: "this ledger speaks 2 to 3", RetryAfterMillis: 60000}},
	{"refused_later", 0, 1, &Refused{Code: RefusedBusy, RetryAfterMillis: 15000}},
}

func TestEveryMessageIsWrittenAndReadByteForByte(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			path := filepath.Join("testdata", "golden", g.name+".json")
			got, err := Encode(g.id, g.re, g.body)
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
			f, body, err := Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if f.ID != g.id || f.Re != g.re || !reflect.DeepEqual(body, g.body) {
				t.Fatalf("read back id %d re %d %+v", f.ID, f.Re, body)
			}
		})
	}
}

func TestEveryMessageTypeHasAGoldenFileAndASectionInTheFormat(t *testing.T) {
	format, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, g := range golden {
		shown[TypeOf(g.body)] = true
	}
	for kind, make := range bodies {
		if TypeOf(make()) != kind {
			t.Errorf("type %q makes a body of type %q", kind, TypeOf(make()))
		}
		if !shown[kind] {
			t.Errorf("no golden file for %q", kind)
		}
		if !bytes.Contains(format, []byte("### `"+kind+"`")) {
			t.Errorf("FORMAT.md has no section on %q", kind)
		}
	}
	for _, g := range golden {
		for name := range jsonFields(reflect.TypeOf(g.body)) {
			if !bytes.Contains(format, []byte("`"+name+"`")) {
				t.Errorf("FORMAT.md does not explain field %q of %q", name, TypeOf(g.body))
			}
		}
	}
}

// jsonFields lists the names of a body's fields, and of those inside them.
func jsonFields(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return names
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names[name] = true
		maps.Copy(names, jsonFields(t.Field(i).Type))
	}
	return names
}

func TestDecodeRefusesWhatIsNoFrame(t *testing.T) {
	long := `{"type":"query","id":1,"body":{"trade_no":"` + strings.Repeat("x", MaxFrame) + `"}}`
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"nothing":                  {"", ErrMalformed},
		"half a frame":             {`{"type":"query","id":1,"body":{"trade_no":`, ErrMalformed},
		"two frames in one":        {`{"type":"ack","id":1,"body":{"news":1}}{"type":"ack","id":1,"body":{"news":1}}`, ErrMalformed},
		"an array":                 {`[]`, ErrMalformed},
		"null":                     {`null`, ErrMalformed},
		"no type":                  {`{"id":1,"body":{}}`, ErrMalformed},
		"no body":                  {`{"type":"query","id":1}`, ErrMalformed},
		"null for a body":          {`{"type":"query","id":1,"body":null}`, ErrMalformed},
		"a list for a body":        {`{"type":"query","id":1,"body":[]}`, ErrMalformed},
		"money with a fraction":    {`{"type":"reverse","id":1,"body":{"trade_no":"a","total_fen":12.5,"reason":""}}`, ErrMalformed},
		"money as a string":        {`{"type":"reverse","id":1,"body":{"trade_no":"a","total_fen":"1250","reason":""}}`, ErrMalformed},
		"a sequence below zero":    {`{"type":"ack","id":1,"body":{"news":-1}}`, ErrMalformed},
		"a number beyond 64 bits":  {`{"type":"ack","id":1,"body":{"news":18446744073709551616}}`, ErrMalformed},
		"a type from the future":   {`{"type":"policy","id":9,"body":{}}`, ErrUnknownType},
		"more than the limit":      {long, ErrTooLong},
		"an id that is a string":   {`{"type":"ack","id":"1","body":{"news":1}}`, ErrMalformed},
		"endless opening brackets": {strings.Repeat(`{"type":`, 8000), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Decode([]byte(c.text)); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestDecodeNamesAnUnknownTypeAndItsRequest(t *testing.T) {
	f, body, err := Decode([]byte(`{"type":"policy","id":9,"body":{}}`))
	if !errors.Is(err, ErrUnknownType) || f.ID != 9 || f.Type != "policy" || body != nil {
		t.Fatalf("%+v %v %v", f, body, err)
	}
}

func TestDecodeIgnoresUnknownFields(t *testing.T) {
	_, body, err := Decode([]byte(`{"type":"ack","id":1,"later":{"a":[1]},"body":{"news":7,"later":true}}`))
	if ack, ok := body.(*Ack); err != nil || !ok || ack.News != 7 {
		t.Fatalf("%v %v", body, err)
	}
}

func TestEncodeRefusesStrangersAndGiants(t *testing.T) {
	if _, err := Encode(1, 0, struct{}{}); !errors.Is(err, ErrUnknownType) {
		t.Fatal(err)
	}
	if _, err := Encode(1, 0, Query{TradeNo: strings.Repeat("x", MaxFrame)}); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

func TestAPayCodeShowsItsLengthOnlyInEveryLogAndError(t *testing.T) {
	pay := Pay{TradeNo: trade, Code: online}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", slog.Any("code", pay.Code))
	fmt.Fprintf(&out, "%s %v %+v %#v %q", pay.Code, pay.Code, pay, pay, pay.Code)
	raw, err := json.Marshal(pay)
	if err != nil || !bytes.Contains(raw, []byte(online)) {
		t.Fatal("the line itself must carry the code", err)
	}
	bad := bytes.Replace(raw, []byte(`"attempt":0`), []byte(`"attempt":"`+string(online)+`"`), 1)
	_, _, err = Decode([]byte(`{"type":"pay","id":1,"body":` + string(bad) + `}`))
	if !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
	fmt.Fprint(&out, err)
	if bytes.Contains(out.Bytes(), []byte(online)) {
		t.Fatalf("leaked: %s", out.String())
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		raw, err := Encode(g.id, g.re, g.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"type":"ack","id":1,"body":{"news":-1}}`))
	f.Add([]byte(`{"TYPE":"ack","Id":1,"body":{"News":1,"news":2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, body, err := Decode(data)
		if err != nil {
			if body != nil {
				t.Fatal("a body beside an error")
			}
			return
		}
		if TypeOf(body) != frame.Type {
			t.Fatalf("type %q with a body of %q", frame.Type, TypeOf(body))
		}
		raw, err := Encode(frame.ID, frame.Re, body)
		if errors.Is(err, ErrTooLong) {
			return // escapes may make a frame at the limit longer
		}
		if err != nil {
			t.Fatal(err)
		}
		again, second, err := Decode(raw)
		if err != nil || again.ID != frame.ID || again.Re != frame.Re {
			t.Fatalf("not the same again: %v", err)
		}
		if third, err := Encode(again.ID, again.Re, second); err != nil || !bytes.Equal(third, raw) {
			t.Fatalf("written %s, then %s: %v", raw, third, err)
		}
	})
}
