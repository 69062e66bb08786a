package till

import (
	"slices"
	"testing"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// job is the one receipt that waits to be printed.
func (c *counter) job() ledgercache.PrintJob {
	c.t.Helper()
	jobs, err := c.Book().OpenPrints()
	if err != nil || len(jobs) != 1 {
		c.t.Fatalf("%+v %v", jobs, err)
	}
	return jobs[0]
}

func (c *counter) printIs(jobID string, state ledgercache.PrintState) func() bool {
	return func() bool {
		j, err := c.Book().Print(jobID)
		if err != nil {
			c.t.Error(err)
		}
		return j.State == state
	}
}

// looked waits until the printer was asked once more whether it is ready.
func (c *counter) looked() {
	c.t.Helper()
	select {
	case <-c.paper.asked:
	case <-time.After(patience):
		c.t.Fatal("nobody looks at the printer")
	}
}

func TestAReceiptThatHadLeftBeforeTheLastStopIsUnknownAndNeverSentAgain(t *testing.T) {
	c := newCounter(t)
	c.sell(1)
	old := c.job()
	if _, err := c.Book().RecordPrintSent(c.ctx, old.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Book().Close(); err != nil {
		t.Fatal(err)
	}
	c.open()
	c.paper.ready.Store(true)
	c.run()
	c.until("the old job is unknown", c.printIs(old.ID, ledgercache.PrintUnknown))
	c.sell(2)
	c.until("the next receipt is printed", func() bool {
		jobs, err := c.Book().OpenPrints()
		return err == nil && len(jobs) == 0
	})
	if got := c.paper.printed(); len(got) != 1 || got[0] == old.ID {
		t.Fatalf("printed %v, the old job is %s", got, old.ID)
	}
}

func TestAReceiptWaitsForAPrinterThatIsNotReadyAndIsPrintedOnce(t *testing.T) {
	c := newCounter(t)
	c.run()
	p := c.sell(1)
	job := c.job()
	c.looked()
	if !c.printIs(job.ID, ledgercache.PrintQueued)() || len(c.paper.printed()) != 0 {
		t.Fatalf("printed %v without a printer", c.paper.printed())
	}
	c.paper.ready.Store(true)
	c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: weChatCode}) // any change of the book
	c.until("the receipt is printed", c.printIs(job.ID, ledgercache.PrintPrinted))
	if _, err := c.Book().Answer(c.ctx, c.paid(p)); err != nil { // the ledger says it once more
		t.Fatal(err)
	}
	c.sell(3)
	c.until("the next receipt is printed", func() bool { return len(c.paper.printed()) > 1 })
	c.until("nothing waits", func() bool {
		jobs, err := c.Book().OpenPrints()
		return err == nil && len(jobs) == 0
	})
	if got := c.paper.printed(); len(got) != 2 || got[0] != job.ID || got[1] == job.ID {
		t.Fatalf("printed %v", got)
	}
}

func TestAReceiptThatWaitedTenMinutesIsGivenUp(t *testing.T) {
	c := newCounter(t)
	c.run()
	c.sell(1)
	job := c.job()
	c.looked()
	c.clock.pass(10 * time.Minute)
	c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: weChatCode})
	c.until("the receipt is given up", c.printIs(job.ID, ledgercache.PrintFailed))
	if got := c.paper.printed(); len(got) != 0 {
		t.Fatalf("printed %v", got)
	}
}

func TestWhatThePrinterSaysOfAReceiptIsKept(t *testing.T) {
	for _, state := range []ledgercache.PrintState{ledgercache.PrintPrinted, ledgercache.PrintFailed, ledgercache.PrintUnknown} {
		t.Run(string(state), func(t *testing.T) {
			c := newCounter(t)
			c.paper.state = state
			c.sell(1)
			job := c.job()
			c.paper.ready.Store(true)
			c.run()
			c.until("the job is "+string(state), c.printIs(job.ID, state))
			if got := c.paper.printed(); !slices.Equal(got, []string{job.ID}) {
				t.Fatalf("printed %v", got)
			}
			if p := c.trade("A1"); p.State != payment.Success { // paper never changes a sale
				t.Fatalf("%+v", p)
			}
		})
	}
}

func TestACopyIsPrintedOnlyWhenAPersonAsksForIt(t *testing.T) {
	c := newCounter(t)
	c.paper.ready.Store(true)
	c.run()
	c.sell(1)
	c.until("the receipt is printed", func() bool {
		jobs, err := c.Book().OpenPrints()
		return err == nil && len(jobs) == 0
	})
	j, err := c.Print(c.ctx, "A1", "register")
	if err != nil || j.Copy != 2 {
		t.Fatalf("%+v %v", j, err)
	}
	c.until("the copy is printed", c.printIs(j.ID, ledgercache.PrintPrinted))
	if got := c.paper.printed(); len(got) != 2 || got[1] != j.ID {
		t.Fatalf("printed %v, the copy is %s", got, j.ID)
	}
}
