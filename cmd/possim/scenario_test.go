package main_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScenarios plays every story of simulators/scenarios against a demo of its own: the real daemon as a process, real
// devices on pseudo-terminals, the real line. The stories' README says what each word does.
func TestScenarios(t *testing.T) {
	possim(t)
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("..", "..", "simulators", "scenarios"),
		Setup: func(env *testscript.Env) error { return begin(t, env) },
		Cmds:  words,
	})
}

// story is one scenario's world and what it remembers.
type story struct {
	*world
	balances map[string]float64
	codes    map[string]string // by a name that the story gives
	orders   map[string]string // text of the ORDER by number
	receipts map[string]string
	digits   map[string]string
	problem  string // code of the last refusal, "" after a call that was taken
}

type storyKey struct{}

// teller lets the world's checks end the script with its own line number.
type teller struct {
	testing.TB
	ts *testscript.TestScript
}

func (t teller) Helper()                      {}
func (t teller) Fatalf(f string, args ...any) { t.ts.Fatalf(f, args...) }
func (t teller) Fatal(args ...any)            { t.ts.Fatalf("%s", fmt.Sprint(args...)) }

func begin(t *testing.T, env *testscript.Env) error {
	s := &story{
		world: startWorldIn(t, filepath.Join(env.WorkDir, "world")), balances: map[string]float64{}, codes: map[string]string{},
		orders: map[string]string{}, receipts: map[string]string{}, digits: map[string]string{},
	}
	for n := 1; n <= 4; n++ {
		phone := fmt.Sprintf("1380000000%d", n)
		s.balances[phone] = s.balance(phone)
	}
	env.Values[storyKey{}] = s
	env.Defer(s.stop)
	return nil
}

var words = map[string]func(*testscript.TestScript, bool, []string){
	"link": told(1, func(s *story, a []string) {
		s.sim("POST", "/link", object{"up": a[0] == "up"})
		s.link(a[0], 15*time.Second)
	}),
	"crash":   told(0, func(s *story, _ []string) { s.sim("POST", "/terminal", object{"action": "kill"}) }),
	"restart": told(0, func(s *story, _ []string) { s.sim("POST", "/terminal", object{"action": "start"}) }),
	"code":    told(3, func(s *story, a []string) { s.codes[a[0]] = s.code(phone(a[1]), a[2]) }),
	"pay":     told(-2, (*story).tellPay),
	"send": told(3, func(s *story, a []string) {
		s.ask("POST", "/v1/trade/pay", object{"out_trade_no": a[0], "total_fen": fen(a[1]), "auth_code": s.codes[a[2]]})
	}),
	"order":    told(2, (*story).tellOrder),
	"customer": told(3, (*story).tellCustomer),
	"scan":     told(2, (*story).tellScan),
	"digits":   told(2, (*story).tellDigits),
	"cancel":   told(1, func(s *story, a []string) { s.ask("POST", "/v1/trade/"+a[0]+"/cancel", object{}) }),
	"refund":   told(2, func(s *story, a []string) { s.tellRefund(a) }),
	"fault": told(3, func(s *story, a []string) {
		s.sim("POST", "/faults", object{"op": a[0], "action": a[1], "probability": 1, "times": fen(a[2]), "latency_ms": 1500})
	}),
	"nofault":  told(0, func(s *story, _ []string) { s.sim("DELETE", "/faults", nil) }),
	"trade":    told(-2, (*story).tellTrade),
	"refused":  told(1, func(s *story, a []string) { s.refusedAs(a[0]) }),
	"paid":     told(2, (*story).tellPaid),
	"receipts": told(1, func(s *story, a []string) { s.tellReceipts(a[0]) }),
	"agree":    told(0, func(s *story, _ []string) { s.agrees() }),
}

// told makes a word of a script: n arguments, or at least -n.
func told(n int, do func(*story, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || n >= 0 && len(args) != n || n < 0 && len(args) < -n {
			ts.Fatalf("wrong number of arguments")
		}
		s := ts.Value(storyKey{}).(*story)
		s.world.t = teller{s.world.t, ts}
		do(s, args)
	}
}

func phone(last string) string { return "1380000000" + last }

func fen(text string) int {
	n := 0
	if _, err := fmt.Sscan(text, &n); err != nil {
		panic("not a number: " + text) // a fault of the script's own text
	}
	return n
}

// ask calls the register API with the manager's rights and remembers a refusal.
func (s *story) ask(method, path string, body any) object {
	status, answer, _ := s.call(method, s.address.Till+path, s.address.ManagerToken, body)
	s.problem = ""
	if status >= 400 {
		s.problem, _ = answer["code"].(string)
	}
	return answer
}

func (s *story) refusedAs(code string) {
	if s.problem != code {
		s.t.Fatalf("refused as %q, want %q", s.problem, code)
	}
}

func (s *story) tellPay(a []string) {
	body := object{"out_trade_no": a[0], "total_fen": fen(a[1])}
	if len(a) > 2 {
		body["auth_code"] = s.codes[a[2]]
		s.ask("POST", "/v1/trade/pay?wait=25s", body)
		return
	}
	s.ask("POST", "/v1/trade/pay", body)
}

func (s *story) tellOrder(a []string) {
	answer := s.ask("POST", "/v1/trade/precreate", object{"out_trade_no": a[0], "total_fen": fen(a[1])})
	if code, ok := answer["code"].(object); ok {
		s.orders[a[0]], _ = code["text"].(string)
	}
}

// tellCustomer: customer 1 pays A1 · customer 1 online|offline|frozen.
func (s *story) tellCustomer(a []string) {
	if a[1] == "is" {
		s.sim("POST", "/wallets/"+phone(a[0])+"/state", object{"online": a[2] != "offline", "frozen": a[2] == "frozen"})
		return
	}
	paid := s.sim("POST", "/wallets/"+phone(a[0])+"/pay", object{"order_text": s.orders[a[2]]})
	s.receipts[a[2]], _ = paid["receipt_text"].(string)
	s.digits[a[2]], _ = paid["digits"].(string)
}

func (s *story) tellScan(a []string) {
	text := s.codes[a[1]]
	if a[0] == "receipt" {
		text = s.receipts[a[1]]
	}
	s.sim("POST", "/scanner/scan", object{"text": text})
}

func (s *story) tellDigits(a []string) {
	typed := s.digits[a[0]]
	if a[1] == "wrong" {
		if typed = "00000000"; s.digits[a[0]] == typed {
			typed = "00000001"
		}
	}
	s.ask("POST", "/v1/trade/"+a[0]+"/confirm", object{"digits": typed})
}

func (s *story) tellRefund(a []string) {
	s.numbers++
	body := object{"out_refund_no": fmt.Sprintf("R%04d", s.numbers), "refund_fen": fen(a[1]), "reason": "story"}
	s.ask("POST", "/v1/trade/"+a[0]+"/refunds?wait=20s", body)
}

// tellTrade waits until the trade is in the state and every field is as the story says: fee_fen=null, reason=CODE.
func (s *story) tellTrade(a []string) {
	deadline := time.Now().Add(75 * time.Second)
	for {
		trade := s.ask("GET", "/v1/trade/"+a[0], nil)
		wrong := differs(trade, a[1], a[2:])
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) || trade["final"] == true && trade["trade_state"] != a[1] {
			s.t.Fatalf("%s: %s: %v", a[0], wrong, trade)
		}
		time.Sleep(30 * time.Millisecond) // the terminal is outside: nothing here can be awaited
	}
}

func differs(trade object, state string, fields []string) string {
	if trade["trade_state"] != state {
		return fmt.Sprintf("is %v, want %s", trade["trade_state"], state)
	}
	for _, field := range fields {
		name, want, _ := strings.Cut(field, "=")
		have := trade[name]
		if reason, ok := have.(object); ok {
			have = reason["code"]
		}
		text := fmt.Sprint(have)
		if have == nil {
			text = "null"
		}
		if text != want {
			return fmt.Sprintf("%s is %s, want %s", name, text, want)
		}
	}
	return ""
}

func (s *story) tellPaid(a []string) {
	if took := s.balances[phone(a[0])] - s.balance(phone(a[0])); took != float64(fen(a[1])) {
		s.t.Fatalf("customer %s paid %v, want %s", a[0], took, a[1])
	}
}

func (s *story) tellReceipts(n string) {
	if list := s.world.receipts(fen(n)); len(list) != fen(n) {
		s.t.Fatalf("%d receipts, want %s", len(list), n)
	}
}
