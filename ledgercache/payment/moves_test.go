package payment

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// situation is a trade as it may stand, by name.
type situation struct {
	name string
	p    Payment
}

// situations are all states in all modes that can be in them, and within a state all that the rules look at.
func situations(t *testing.T) []situation {
	tried := DigitsTyped{TradeNo: trade}
	matched := DigitsMatched{TradeNo: trade, At: t0.Add(2 * time.Second)}
	wish := CancelWanted{TradeNo: trade}
	converted := accepted().(Accepted)
	converted.Code = sentSigned().(Submitted).Code
	ways := []struct {
		name   string
		mode   Mode
		events []Event
	}{
		{"NOTPAY by code", ByCode, nil},
		{"NOTPAY at the counter", AtCounter, nil},
		{"NOTPAY at the counter, declined", AtCounter, []Event{sent(), says(PayError)}},
		{"NOTPAY by order", ByOrder, nil},
		{"NOTPAY by order, digits tried", ByOrder, []Event{tried}},
		{"NOTPAY by order, digits locked", ByOrder, []Event{tried, tried, tried}},
		{"UNKNOWN by code", ByCode, []Event{sent()}},
		{"UNKNOWN by code, SIGNED", ByCode, []Event{sentSigned()}},
		{"UNKNOWN by code, not heard of", ByCode, []Event{sent(), says(NotFound)}},
		{"UNKNOWN by code, to be cancelled", ByCode, []Event{sent(), wish}},
		{"UNKNOWN by code, reversing", ByCode, []Event{sent(), asks(OpReverse)}},
		{"UNKNOWN by code, paid and reversing", ByCode, []Event{sent(), asks(OpReverse), says(Success)}},
		{"UNKNOWN at the counter", AtCounter, []Event{sent()}},
		{"UNKNOWN at the counter, reversing", AtCounter, []Event{sent(), asks(OpReverse)}},
		{"UNKNOWN by order, to be cancelled", ByOrder, []Event{wish}},
		{"UNKNOWN by order, receipt refused", ByOrder, []Event{ReceiptRefused{TradeNo: trade, Reason: "AMOUNT_MISMATCH"}}},
		{"UNKNOWN by order, reversing", ByOrder, []Event{asks(OpReverse)}},
		{"USERPAYING by code", ByCode, []Event{sent(), says(UserPaying)}},
		{"USERPAYING by code, SIGNED", ByCode, []Event{sentSigned(), says(UserPaying)}},
		{"USERPAYING at the counter", AtCounter, []Event{sent(), says(UserPaying)}},
		{"SUCCESS by code", ByCode, []Event{sent(), says(Success)}},
		{"SUCCESS by order", ByOrder, []Event{says(Success)}},
		{"SUCCESS by receipt", ByOrder, []Event{receipt()}},
		{"SUCCESS by digits", ByOrder, []Event{tried, matched}},
		{"SUCCESS by digits, confirmed", ByOrder, []Event{tried, matched, says(Success)}},
		{"SUCCESS after an upload", AtCounter, []Event{accepted(), says(Success)}},
		{"CLOSED at the counter", AtCounter, []Event{wish}},
		{"CLOSED by code", ByCode, []Event{sent(), asks(OpReverse), says(Closed)}},
		{"REVOKED by code", ByCode, []Event{sent(), asks(OpReverse), says(Revoked)}},
		{"REVOKED after a withdrawal", AtCounter, []Event{accepted(), Withdrawn{TradeNo: trade}, says(Revoked)}},
		{"PAYERROR by code", ByCode, []Event{sent(), says(PayError)}},
		{"PAYERROR by the terminal", ByCode, []Event{Rejected{TradeNo: trade, Reason: "CODE_EXPIRED"}}},
		{"ACCEPTED_OFFLINE", AtCounter, []Event{accepted()}},
		{"ACCEPTED_OFFLINE, converted", ByCode, []Event{sentSigned(), converted}},
		{"ACCEPTED_OFFLINE, uploading", AtCounter, []Event{accepted(), asks(OpUpload)}},
		{"ACCEPTED_OFFLINE, withdrawn", AtCounter, []Event{accepted(), Withdrawn{TradeNo: trade}}},
		{"BOUNCED", AtCounter, []Event{accepted(), to(OpUpload, says(Bounced))}},
	}
	var list []situation
	for _, w := range ways {
		list = append(list, situation{w.name, walk(t, w.mode, w.events...)})
	}
	expired, err := Apply(walk(t, ByOrder), Expired{TradeNo: trade}, t0.Add(OrderFor))
	if err != nil {
		t.Fatal(err)
	}
	return append(list, situation{"UNKNOWN by order, expired", expired})
}

// moves are all events that may come, with the words that the ledger may say.
func moves() []struct {
	name string
	e    Event
} {
	type move = struct {
		name string
		e    Event
	}
	list := []move{
		{"Submitted", sentSigned()}, {"Rejected", Rejected{TradeNo: trade, Reason: "CODE_EXPIRED"}},
		{"Asked pay", asks(OpPay)}, {"Asked order", asks(OpOrder)}, {"Asked query", asks(OpQuery)}, {"Asked reverse", asks(OpReverse)},
		{"Asked upload", asks(OpUpload)}, {"CancelWanted", CancelWanted{TradeNo: trade}}, {"Expired, early", Expired{TradeNo: trade}},
		{"Expired", Expired{TradeNo: trade}},
		{"OrderShown", OrderShown{TradeNo: trade, OrderText: "again", ExpiresAt: t0.Add(2 * OrderFor)}}, {"Accepted", accepted()}, {"Withdrawn", Withdrawn{TradeNo: trade}}, {"ReceiptShown", receipt()},
		{"ReceiptRefused", ReceiptRefused{TradeNo: trade, Reason: "PAID_AFTER_EXPIRY"}}, {"DigitsTyped", DigitsTyped{TradeNo: trade}},
		{"DigitsMatched", DigitsMatched{TradeNo: trade, At: t0.Add(5 * time.Second)}},
	}
	for _, s := range []State{NotPay, NotFound, UserPaying, Success, PayError, Closed, Revoked, Bounced, Unknown, AcceptedOffline, "NONSENSE"} {
		a := says(s)
		a.LedgerNo = "L1" // as the receipt says
		list = append(list, move{"Answered " + string(s), a})
	}
	return append(list, move{"Answered SUCCESS, to the reversal", to(OpReverse, says(Success))}, move{"Answered BOUNCED, to the upload", to(OpUpload, says(Bounced))},
		move{"Answered SUCCESS, another amount", Answered{TradeNo: trade, State: Success, TotalFen: 1, PaidFen: 1, PaidAt: t0}},
		move{"Opened", Opened{TradeNo: trade, TotalFen: 1}})
}

// Every event in every situation: the golden table is what a person has read. A state is a move, "=" a replay, "?" impossible;
// what is not named is illegal. Only a move can be journalled.
func TestEveryEventInEverySituation(t *testing.T) {
	var table strings.Builder
	list := situations(t)
	for _, m := range moves() {
		fmt.Fprintf(&table, "%s\n", m.name)
		at := t0.Add(10 * time.Second)
		if m.name == "Expired" {
			at = t0.Add(OrderFor)
		}
		outcomes := map[string][]string{}
		var order []string
		for _, s := range list {
			got, err := Apply(s.p, m.e, at)
			word := outcome(got, err)
			if err != nil && fmt.Sprint(got) != fmt.Sprint(s.p) {
				t.Errorf("%s in %s was refused and still changed the trade", m.name, s.name)
			}
			if err == nil && s.p.State.Final() && got.State != s.p.State {
				t.Errorf("%s undoes %s", m.name, s.name)
			}
			if err == nil {
				if _, err := Postings(s.p, m.e, got); err != nil {
					t.Errorf("%s in %s: %v", m.name, s.name, err)
				}
			}
			if outcomes[word] == nil {
				order = append(order, word)
			}
			outcomes[word] = append(outcomes[word], s.name)
		}
		for _, word := range order {
			switch {
			case word == "!": // what is not named is illegal
			case len(outcomes[word]) == len(list):
				fmt.Fprintf(&table, "    %s always\n", word)
			default:
				fmt.Fprintf(&table, "    %s\n        %s\n", word, strings.Join(outcomes[word], "\n        "))
			}
		}
	}
	golden := "testdata/moves.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != table.String() {
		t.Errorf("the moves are not those of %s; look at the difference after -update", golden)
	}
}

// The table cannot forget a state or an event.
func TestTheTableOfMovesIsWhole(t *testing.T) {
	seen := map[State]bool{}
	for _, s := range situations(t) {
		if !strings.HasPrefix(s.name, string(s.p.State)) {
			t.Errorf("%s is %s", s.name, s.p.State)
		}
		seen[s.p.State] = true
	}
	for _, s := range []State{NotPay, UserPaying, Unknown, Success, Closed, Revoked, PayError, AcceptedOffline, Bounced} {
		if !seen[s] {
			t.Errorf("no situation is %s", s)
		}
	}
	have := map[string]bool{}
	for _, m := range moves() {
		have[strings.TrimPrefix(fmt.Sprintf("%T", m.e), "payment.")] = true
	}
	for _, name := range events(t) {
		if !have[name] {
			t.Errorf("the event %s is not in the table", name)
		}
	}
}

// events are the types of this package that are events: those with the method trade.
func events(t *testing.T) (names []string) {
	file, err := parser.ParseFile(token.NewFileSet(), "apply.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]string{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil && d.Name.Name == "trade" {
				names = append(names, d.Recv.List[0].Type.(*ast.Ident).Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					doc[s.Name.Name] = d.Doc.Text()
				}
			}
		}
	}
	for _, name := range names {
		if text := doc[name]; !strings.Contains(text, "→") && !strings.Contains(text, "stay") {
			t.Errorf("the comment of %s does not name from and to: %q", name, text)
		}
	}
	if len(names) < 13 {
		t.Errorf("only %d events: %v", len(names), names)
	}
	return names
}
