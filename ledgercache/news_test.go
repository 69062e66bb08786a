package ledgercache

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

var (
	rootKey   = ed25519.NewKeyFromSeed([]byte("root-root-root-root-root-root-00"))
	policyKey = ed25519.NewKeyFromSeed([]byte("policy-policy-policy-policy-0000"))
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[32:]) }

// taught is a shop that believes the test's ledger.
func taught(t *testing.T) *shop {
	return newShopWith(t, func(o *Options) {
		o.Pins = trust.Pins{{Role: trust.Root, Public: public(rootKey)}, {Role: trust.Policy, Public: public(policyKey)}}
	})
}

func (s *shop) header(version uint32) trust.Header {
	return trust.Header{Terminal: trust.Everyone, Version: version, Issued: uint32(s.clock().Unix()), Expires: uint32(s.clock().Add(72 * time.Hour).Unix())}
}

func (s *shop) sealed(topic trust.Topic, news any) trust.Envelope {
	s.t.Helper()
	raw, err := json.Marshal(news)
	check(s.t, err)
	signer := policyKey
	if topic == trust.Keys {
		signer = rootKey
	}
	e, err := trust.Seal(topic, raw, signer)
	check(s.t, err)
	return e
}

func (s *shop) policy(version uint32) trust.PolicyNews {
	return trust.PolicyNews{Header: s.header(version), PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: 5000_00, TerminalCount: 200,
		ConvertFen: 50_00, DigitsFen: 1000_00, CodeSeconds: 60, SkewSeconds: 30}
}

// denyOf is a whole deny list of n tokens.
func (s *shop) denyOf(version uint32, n int) trust.DenyNews {
	news := trust.DenyNews{Header: s.header(version), Add: []string{}, Remove: []string{}, Count: n}
	list := make([][8]byte, n)
	for i := range list {
		list[i] = [8]byte{byte(i), byte(i >> 8), byte(i >> 16), 7}
	}
	slices.SortFunc(list, func(a, b [8]byte) int { return slices.Compare(a[:], b[:]) })
	for _, token := range list {
		news.Add = append(news.Add, hex.EncodeToString(token[:]))
	}
	news.SHA256 = trust.DenyHash(list)
	return news
}

func TestSignedNewsAreInForceAtOnceAndAfterARebuild(t *testing.T) {
	s := taught(t)
	check(t, s.Learn(ctx, trust.Rules, s.sealed(trust.Rules, s.policy(3))))
	check(t, s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, s.denyOf(5, 3))))
	check(t, s.Learn(ctx, trust.Fees, s.sealed(trust.Fees, trust.FeeNews{Header: s.header(1), BasisPoints: 38})))
	check(t, s.Learn(ctx, trust.Operators, s.sealed(trust.Operators, trust.OperatorNews{Header: s.header(1), Operators: []trust.Operator{{ID: "007", Name: "张三"}}})))
	_, issuer, _ := ed25519.GenerateKey(nil)
	set := trust.KeyNews{Header: s.header(1), Keys: []trust.KeyPin{
		{Role: trust.Issuer, Public: hex.EncodeToString(public(issuer)), NotBefore: 1, NotAfter: 1 << 31},
		{Role: trust.Policy, Public: hex.EncodeToString(public(policyKey)), NotBefore: 1, NotAfter: 1 << 31},
	}}
	check(t, s.Learn(ctx, trust.Keys, s.sealed(trust.Keys, set)))
	for _, how := range []func(){func() {}, s.reopen, func() {
		check(t, s.Close())
		check(t, os.RemoveAll(filepath.Join(s.opts.Dir, "cache")))
		s.open()
	}} {
		how()
		p, err := s.Policy()
		check(t, err)
		d, err := s.DenyList()
		check(t, err)
		f, err := s.Fees()
		check(t, err)
		o, err := s.Operators()
		check(t, err)
		pins, err := s.Pins()
		check(t, err)
		marks, err := s.Marks()
		check(t, err)
		if p.Version != 3 || p.Limits.PaymentFen != 200_00 || d.Version != 5 || d.Count != 3 || f.BasisPoints != 38 || len(o) != 1 || len(marks) != 5 ||
			len(pins.Keys(trust.Issuer, s.clock())) != 1 || len(pins.Keys(trust.Root, s.clock())) != 1 {
			t.Errorf("%+v %+v %+v %+v %+v %+v", p, d, f, o, pins, marks)
		}
		check(t, s.view(func(disk state) error { sameState(t, dump(t, folded(t, s.Book)), dump(t, disk)); return nil }))
	}
}

func TestNewsThatAreNotToBeBelievedChangeNothing(t *testing.T) {
	s := taught(t)
	good := s.sealed(trust.Rules, s.policy(3))
	check(t, s.Learn(ctx, trust.Rules, good))
	at := s.Head()
	check(t, s.Learn(ctx, trust.Rules, good)) // once more
	other := s.policy(9)
	other.Terminal = "99999999"
	check(t, s.Learn(ctx, trust.Rules, s.sealed(trust.Rules, other)))
	forged := good
	forged.Sig = make([]byte, 64)
	wrongRole, err := trust.Seal(trust.Rules, good.Payload, rootKey)
	check(t, err)
	for name, c := range map[string]struct {
		topic trust.Topic
		e     trust.Envelope
		want  error
	}{
		"forged": {trust.Rules, forged, trust.ErrForged}, "the root's": {trust.Rules, wrongRole, trust.ErrUnknownKey}, "as a deny list": {trust.Deny, good, trust.ErrForged},
		"no policy":   {trust.Rules, s.sealed(trust.Rules, map[string]int{"version": 9}), trust.ErrPayload},
		"signed time": {trust.Time, s.sealed(trust.Time, map[string]int{"time_ms": 9}), ErrTopic},
	} {
		if err := s.Learn(ctx, c.topic, c.e); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if s.Head() != at {
		t.Error("something was journalled")
	}
	for name, bad := range map[string]trust.PolicyNews{"older": s.policy(2), "the same version with other bytes": func() trust.PolicyNews { p := s.policy(3); p.PaymentFen++; return p }()} {
		if err := s.Learn(ctx, trust.Rules, s.sealed(trust.Rules, bad)); !errors.Is(err, trust.ErrRolledBack) {
			t.Errorf("%s: %v", name, err)
		}
	}
	alarms, err := s.Alarms(9)
	if p, _ := s.Policy(); err != nil || len(alarms) != 2 || alarms[0].Code != "ROLLED_BACK" || p.Limits.PaymentFen != 200_00 {
		t.Errorf("%+v, %v, %+v", alarms, err, p)
	}
}

func TestADeltaOfTheDenyListIsAppliedOrAsksForTheWhole(t *testing.T) {
	s := taught(t)
	check(t, s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, s.denyOf(5, 300))))
	next := s.denyOf(6, 301)
	delta := next
	delta.Base, delta.Add = 5, []string{hex.EncodeToString([]byte{300 & 0xFF, 1, 0, 7, 0, 0, 0, 0})}
	gap := delta
	gap.Version, gap.Base = 8, 7
	if err := s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, gap)); !errors.Is(err, trust.ErrGap) {
		t.Fatalf("a delta on a version that is not here: %v", err)
	}
	check(t, s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, delta)))
	check(t, s.view(func(st state) error {
		for token, want := range map[[8]byte]bool{{44, 1, 0, 7}: true, {0, 0, 0, 7}: true, {44, 1, 0, 8}: false, {45, 1, 0, 7}: false} {
			if got, err := denied(st, token[:]); err != nil || got != want {
				t.Errorf("token %x: %v, %v", token, got, err)
			}
		}
		return nil
	}))
	if d, _ := s.DenyList(); d.Version != 6 || d.Count != 301 {
		t.Errorf("%+v", d)
	}
}

// TestTheLongestDenyListFitsBesideSales: a long list must not seal the book, live or in a rebuild.
func TestTheLongestDenyListFitsBesideSales(t *testing.T) {
	s := taught(t)
	done := make(chan error)
	go func() {
		for n := range 200 {
			if _, _, err := s.OpenTrade(ctx, s.online(n)); err != nil {
				done <- fmt.Errorf("sale %d: %w", n, err)
				return
			}
		}
		done <- nil
	}()
	check(t, s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, s.denyOf(1, 30_000))))
	check(t, <-done)
	check(t, s.Close())
	check(t, os.RemoveAll(filepath.Join(s.opts.Dir, "cache")))
	s.open()
	check(t, s.Err())
	if list, _, err := s.Trades(Query{Limit: 500}); err != nil || len(list) != 200 {
		t.Errorf("%d trades, %v", len(list), err)
	}
	if d, _ := s.DenyList(); d.Count != 30_000 {
		t.Errorf("%+v", d)
	}
	if p := s.must(s.Trade("A000007")); p.State != payment.Unknown {
		t.Errorf("%+v", p)
	}
}

func TestEachKeyOfTheStateBeginsWithALetterOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range [][]byte{
		keyApplied, keyMeta, keyCounter, keyShift, keyCursor, keyNews, keyExposure, keyDigits, keyPolicy, keyDenyList, keyPins, keyFees, keyOperators,
		keySignedHead, keyTime, prefixTrade, prefixOutTrade, prefixOpenTrade, prefixSpent, prefixWallet, prefixCertUsed, prefixWalletOpen, prefixUpload, prefixDenied,
		prefixMark, prefixDay, prefixAmount, prefixState, prefixRefund, prefixOutRefund, prefixOpenRefund, prefixTradeRefund, prefixShift, prefixPrint, prefixOpenPrint, prefixAlarm,
		prefixDayBook, prefixDayOpen, prefixZ, prefixCarried,
	} {
		if len(k) != 1 || seen[string(k)] {
			t.Errorf("key %q stands for two things", k)
		}
		seen[string(k)] = true
	}
}
