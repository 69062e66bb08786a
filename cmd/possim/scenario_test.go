package main_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
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
	"reboot": told(1, func(s *story, a []string) {
		s.sim("POST", "/terminal", object{"action": "start", "clock_ms": fen(a[0]), "reboot": true})
	}),
	"code":  told(3, func(s *story, a []string) { s.codes[a[0]] = s.code(phone(a[1]), a[2]) }),
	"forge": told(2, (*story).tellForge),
	"pay":   told(-2, (*story).tellPay),
	"send": told(3, func(s *story, a []string) {
		s.ask("POST", "/v1/trade/pay", object{"out_trade_no": a[0], "total_fen": fen(a[1]), "auth_code": s.codes[a[2]]})
	}),
	"order":    told(2, (*story).tellOrder),
	"customer": told(3, (*story).tellCustomer),
	"scan":     told(2, (*story).tellScan),
	"digits":   told(2, (*story).tellDigits),
	"accept":   told(1, func(s *story, a []string) { s.ask("POST", "/v1/trade/"+a[0]+"/accept_offline", object{}) }),
	"policy":   told(-1, (*story).tellPolicy),
	"deny":     told(-1, (*story).tellDeny),
	"rotate": told(1, func(s *story, a []string) {
		version := s.sim("POST", "/ledger/keys", object{"rotate": a[0]})["version"]
		s.until("the key set is learned", 10*time.Second, func() bool { return s.limits()["keys_version"] == version })
	}),
	"replay":   told(1, func(s *story, a []string) { s.sim("POST", "/ledger/replay", object{"topic": a[0]}) }),
	"exposure": told(2, (*story).tellExposure),
	"ready":    told(-1, (*story).tellReady),
	"warns":    told(1, func(s *story, a []string) { s.warns(a[0], true) }),
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
	"ledger":   told(2, (*story).tellLedger),
	"agree":    told(0, (*story).tellAgree),
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
	switch {
	case a[1] == "confirms":
		s.tellConfirm(phone(a[0]), a[2])
		return
	case a[1] == "is" && a[2] == "refusing":
		s.call("POST", s.address.Control+"/_sim/wallets/"+phone(a[0])+"/confirm", "", object{"refuse": true})
		return
	}
	if a[1] == "is" {
		s.sim("POST", "/wallets/"+phone(a[0])+"/state", object{"online": a[2] != "offline", "frozen": a[2] == "frozen"})
		return
	}
	paid := s.sim("POST", "/wallets/"+phone(a[0])+"/pay", object{"order_text": s.orders[a[2]]})
	s.receipts[a[2]], _ = paid["receipt_text"].(string)
	s.digits[a[2]], _ = paid["digits"].(string)
}

// tellConfirm: customer 1 confirms right|wrong. A wrong PIN is refused by name.
func (s *story) tellConfirm(phone, how string) {
	pin, _ := s.sim("GET", "/wallets/"+phone, nil)["pin"].(string)
	if how == "wrong" {
		pin = "000000"
	}
	status, answer, _ := s.call("POST", s.address.Control+"/_sim/wallets/"+phone+"/confirm", "", object{"pin": pin})
	s.problem = ""
	if status >= 400 {
		s.problem, _ = answer["code"].(string)
	}
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
	if a[1] == "forged" {
		typed = s.forged(a[0])
	}
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

// tellPolicy: policy payment_fen=1000 …, issued and learned.
func (s *story) tellPolicy(a []string) {
	body := object{}
	for _, field := range a {
		name, value, _ := strings.Cut(field, "=")
		body[name] = fen(value)
	}
	version := s.sim("POST", "/ledger/policy", body)["version"]
	s.until("the policy is learned", 10*time.Second, func() bool { return s.limits()["policy_version"] == version })
}

// tellDeny: deny CODE…, the wallets whose codes these are, issued and learned. The ledger knows a wallet by its token.
func (s *story) tellDeny(a []string) {
	add := []any{}
	for _, name := range a {
		add = append(add, s.token(name))
	}
	version := s.sim("POST", "/ledger/deny", object{"add": add})["version"]
	s.until("the deny list is learned", 10*time.Second, func() bool { return s.limits()["deny_list_version"] == version })
}

func (s *story) token(code string) string {
	signed, reason := paycode.ParseSigned(s.codes[code])
	if reason != "" {
		s.t.Fatalf("%s is no SIGNED code: %s", code, reason)
	}
	return fmt.Sprintf("%x", signed.Cert.Token)
}

func (s *story) limits() object { return s.world.terminal()["limits"].(object) }

// tellExposure: exposure FEN COUNT, waited for.
func (s *story) tellExposure(a []string) {
	s.until("exposure "+strings.Join(a, " "), 20*time.Second, func() bool {
		e := s.world.terminal()["exposure"].(object)
		return e["fen"] == float64(fen(a[0])) && e["count"] == float64(fen(a[1]))
	})
}

// tellReady: ready yes, or what is missing, in order; waited for.
func (s *story) tellReady(a []string) {
	want := strings.Join(a, " ")
	if want == "yes" {
		want = ""
	}
	have := ""
	s.until("offline readiness", 20*time.Second, func() bool {
		have = ""
		for _, name := range s.world.terminal()["offline_ready"].(object)["missing"].([]any) {
			have = strings.TrimSpace(have + " " + name.(string))
		}
		return have == want
	})
}

// tellAgree: the ledger's own assertion, the terminal's own proof, and both by trade, to the fen.
func (s *story) tellAgree([]string) {
	s.agrees()
	s.bookAgreesWithLedger()
	s.expect(0, "核验通过", "journal", "verify", "-q", "-c", s.config())
}

// TestEachCornerSurvivesAKillAfterAnyOfItsSteps plays the stories of the corners again, each time with kill -9 and a new start
// behind another line. What the scanner read just before may be lost with the process; the cashier scans it again. A
// sample by default, all of them with YUPOS_FULL=1.
func TestEachCornerSurvivesAKillAfterAnyOfItsSteps(t *testing.T) {
	possim(t)
	var all []string
	dir := t.TempDir()
	for _, corner := range []string{"online-corner", "phone-offline-corner", "receipt-corner", "digits-corner", "offline-corner", "offline-at-counter", "withdrawn", "converted-request-lost"} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "simulators", "scenarios", corner+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		for n, story := range killed(string(raw)) {
			all = append(all, filepath.Join(dir, fmt.Sprintf("%s-%02d.txt", corner, n+1)))
			if err := os.WriteFile(all[len(all)-1], []byte(story), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	seed := uint64(time.Now().UnixNano())
	if os.Getenv("YUPOS_FULL") == "" {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:4]
	}
	t.Logf("seed %d, %d stories", seed, len(all))
	testscript.Run(t, testscript.Params{Files: all, Setup: func(env *testscript.Env) error { return begin(t, env) }, Cmds: words})
}

// killed are the variants of a story with a kill behind one act of it. They do not count the paper: a slip that was on its
// way when the process died is unknown, and never printed again by itself.
func killed(story string) (variants []string) {
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(story), "\n"), func(line string) bool { return strings.HasPrefix(line, "receipts ") })
	for n, line := range lines {
		act, _, _ := strings.Cut(line, " ")
		switch act {
		case "link", "pay", "order", "customer", "scan", "digits", "accept", "cancel":
		default:
			continue // a comment, an expectation, or something outside
		}
		extra := []string{"crash", "restart"}
		if act == "scan" {
			extra = append(extra, line)
		}
		variants = append(variants, strings.Join(slices.Insert(slices.Clone(lines), n+1, extra...), "\n")+"\n")
	}
	return variants
}

// tellLedger: the ledger knows the trade by the register's number and in this state; waited for.
func (s *story) tellLedger(a []string) {
	s.until("the ledger has "+a[0]+" "+a[1], 20*time.Second, func() bool {
		for _, e := range s.sim("GET", "/ledger/trades", nil)["trades"].([]any) {
			if t := e.(object); t["out_trade_no"] == a[0] && t["state"] == a[1] {
				return true
			}
		}
		return false
	})
}

// forged are the right digits of an order that nobody has paid, as whoever steals the terminal's secret could say them.
func (s *story) forged(no string) string {
	raw, err := os.ReadFile(filepath.Join(s.dir, "posd", "identity", "confirmation.secret"))
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil || len(secret) != 32 {
		s.t.Fatalf("secret of %d bytes, %v", len(secret), err)
	}
	trade := s.ask("GET", "/v1/trade/"+no, nil)
	digits, err := paycode.Digits([32]byte(secret), s.world.terminal()["terminal_id"].(string), trade["trade_no"].(string), money.Fen(trade["total_fen"].(float64)))
	if err != nil {
		s.t.Fatal(err)
	}
	return digits
}

// tellForge: forge NAME REASON, a SIGNED code that a terminal must refuse by this name: made with the ledger's own issuer key
// where the fault is not the key, and with one fault each.
func (s *story) tellForge(a []string) {
	issuer := s.issuerKey()
	public, wallet, _ := ed25519.GenerateKey(nil)
	now := uint32(time.Now().Unix())
	created, flip := now, 0
	cert := paycode.Cert{
		Tier: 3, MaxCount: 5, Token: [8]byte{byte(len(s.codes) + 1), 9}, WalletKey: public, NotBefore: now - 3600, NotAfter: now + 3600, PerPaymentFen: 20000, AllowanceFen: 50000,
	}
	switch a[1] {
	case "MALFORMED":
	case "UNKNOWN_ISSUER":
		_, issuer, _ = ed25519.GenerateKey(nil)
	case "CERT_FORGED":
		flip = 120 // in the issuer's signature
	case "CERT_NOT_YET_VALID":
		cert.NotBefore = now + 600
	case "CERT_EXPIRED":
		cert.NotAfter = now - 600
	case "CODE_FORGED":
		flip = 243 // in the wallet's signature
	case "CODE_FROM_FUTURE":
		created = now + 120
	case "CODE_EXPIRED":
		created = now - 120
	case "OVER_CERT_LIMIT":
		cert.PerPaymentFen = 100
	default:
		s.t.Fatalf("unknown forgery %s", a[1])
	}
	der, err := paycode.MakeCert(cert, issuer)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := paycode.MakeSigned(der, 1, created, 100000, wallet)
	if err != nil {
		s.t.Fatal(err)
	}
	if a[1] == "MALFORMED" {
		text = text[:len(text)-8]
	}
	if flip > 0 {
		text = flipBit(s.t, text, flip)
	}
	s.codes[a[0]] = text
}

func flipBit(t testing.TB, text string, at int) string {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 1
	return base64.StdEncoding.EncodeToString(raw)
}

func (s *story) issuerKey() ed25519.PrivateKey {
	raw, err := os.ReadFile(filepath.Join(s.dir, "ledger", "ca", "issuer.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		s.t.Fatal("no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		s.t.Fatal("no issuer key", err)
	}
	return key
}
