package ledgercache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

func TestUploadsAreRecordedBeforeTheyLeaveAndJudgedInOneStep(t *testing.T) {
	s, _ := offlineShop(t)
	var all []string
	for n := 1; n <= 4; n++ {
		all = append(all, s.offline(n, 10_00, s.signedBy(byte(n), 1)).TradeNo)
	}
	before := s.Head().Sequence
	sent, err := s.RecordUploads(ctx, all)
	check(t, err)
	if len(sent) != 4 || s.Head().Sequence != before+4 || sent[3].UploadAsks != 1 {
		t.Fatalf("sent %d, sequence %d after %d", len(sent), s.Head().Sequence, before)
	}
	if _, err := s.Withdraw(ctx, all[0], "op1"); err == nil {
		t.Error("withdrawn after its upload left")
	}
	paid := payment.Answered{TradeNo: all[0], To: payment.OpUpload, State: payment.Success, TotalFen: 10_00, PaidFen: 10_00, PaidAt: s.clock(), LedgerNo: "L1"}
	bounced := payment.Answered{TradeNo: all[1], To: payment.OpUpload, State: payment.Bounced, Reason: "CODE_SPENT", Bearer: payment.BearerLedger}
	wrong := paid
	wrong.TradeNo, wrong.PaidFen = all[2], 11_00
	stranger := paid
	stranger.TradeNo = NewTradeNo(s.clock())
	for range 2 { // the same judgements again change nothing
		check(t, s.AnswerUploads(ctx, []payment.Answered{wrong, stranger, paid, bounced}))
	}
	for no, want := range map[string]payment.State{all[0]: payment.Success, all[1]: payment.Bounced, all[2]: payment.AcceptedOffline, all[3]: payment.AcceptedOffline} {
		if p := s.must(s.ByTradeNo(no)); p.State != want {
			t.Errorf("%s, want %s", p.State, want)
		}
	}
	s.reopen()
	left, _, err := s.OpenWork(payment.LaneUpload, "", 10)
	check(t, err)
	if len(left) != 2 {
		t.Errorf("%d left", len(left))
	}
	again, err := s.RecordUploads(ctx, all)
	check(t, err)
	if len(again) != 2 || again[0].UploadAsks != 2 {
		t.Errorf("sent again %+v", again)
	}
}

// TestTheOldestUploadIsRightWhateverCameAndWent compares what the book remembers with a scan, after every step, over
// acceptances, judgements, clocks that go back, and restarts.
func TestTheOldestUploadIsRightWhateverCameAndWent(t *testing.T) {
	s, _ := offlineShop(t)
	var open, sent []payment.Payment
	codes := map[string]Signed{}
	most, late := 0, 0
	dice := rand.New(rand.NewPCG(1, 2))
	for n := range 120 {
		switch roll := dice.IntN(10); {
		case roll < 7 && len(open) < 45:
			s.pass(time.Duration(dice.IntN(2000)-300) * time.Millisecond)
			if len(sent) > 0 && dice.IntN(3) == 0 { // accepted late, and perhaps by a clock that went back
				p := sent[0]
				sent = sent[1:]
				p, err := s.AcceptOffline(ctx, p.TradeNo, codes[p.TradeNo], goodClock, "op")
				if err == nil && p.State == payment.AcceptedOffline {
					late++
					open = append(open, p)
				}
			} else if dice.IntN(3) == 0 {
				c := s.signedBy(byte(n), uint32(n+1))
				p, _, err := s.OpenTrade(ctx, New{
					OutTradeNo: fmt.Sprintf("S%04d", n), Mode: payment.ByCode, TotalFen: 1, BodyHash: []byte{byte(n)},
					Code: &Code{Text: c.Text, ScannedAt: c.ScannedAt, Wallet: c.Wallet, Counter: c.Counter},
				})
				check(t, err)
				sent, codes[p.TradeNo] = append(sent, p), c
			} else if p := s.offline(n, 1, s.signedBy(byte(n), uint32(n+1))); p.State == payment.AcceptedOffline {
				open = append(open, p)
			}
		case roll < 9 && len(open) > 0:
			at := dice.IntN(len(open))
			a := s.paid(open[at])
			a.To = payment.OpUpload
			if _, err := s.RecordUploads(ctx, []string{open[at].TradeNo}); err != nil {
				t.Fatal(err)
			}
			check(t, s.AnswerUploads(ctx, []payment.Answered{a}))
			open = slices.Delete(open, at, at+1)
		default:
			s.reopen()
		}
		most = max(most, len(open))
		var want time.Time
		for _, p := range open {
			if want.IsZero() || p.AcceptedAt.Before(want) {
				want = p.AcceptedAt
			}
		}
		for range 2 { // from a scan, and from memory
			if e, err := s.Exposure(); err != nil || e.Count != len(open) || !e.OldestAt.Equal(want) {
				t.Fatalf("step %d: %+v, %v; want %d since %v", n, e, err, len(open), want)
			}
		}
	}
	if most < 5 || late == 0 {
		t.Errorf("at most %d were open, %d of them accepted late", most, late)
	}
}
