package till

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"yupos/ledgercache"
)

// printWithin is how long a receipt waits for a printer. Later nobody stands there for it; a copy is one key away.
const printWithin = 10 * time.Minute

// printRetry is how often a printer that was not ready is looked at again, beside the ticks of its own changes.
const printRetry = 2 * time.Second

// print carries queued receipts to paper, one after the other. A job that had left before the last stop is unknown: it is
// never sent again by itself.
func (t *Till) print(ctx context.Context) error {
	if err := t.forgetSent(ctx); err != nil {
		return err
	}
	changes := t.book.Watch()
	defer func() { changes.Close() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		waiting, err := t.printQueued(ctx)
		if err != nil || ctx.Err() != nil {
			return ignoreEnd(ctx, err)
		}
		timer.Stop()
		if waiting {
			timer.Reset(printRetry)
		}
		if !t.awaitPrint(ctx, &changes, timer) {
			return nil
		}
	}
}

// awaitPrint waits for a new job or for the time to look again; false when the till ends.
func (t *Till) awaitPrint(ctx context.Context, changes **ledgercache.Watcher, timer *time.Timer) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.book.Failed():
			return false
		case <-timer.C:
			return true
		case c, ok := <-(*changes).C:
			if !ok {
				(*changes).Close()
				*changes = t.book.Watch()
				return true
			}
			if c.Kind == ledgercache.ChangePrint || c.Kind == ledgercache.ChangeTrade || c.Kind == ledgercache.ChangeRefund {
				return true
			}
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, ledgercache.ErrClosed) || errors.Is(err, ledgercache.ErrReadOnly) {
		return nil
	}
	return err
}

func (t *Till) forgetSent(ctx context.Context) error {
	if t.book.Err() != nil {
		return nil
	}
	jobs, err := t.book.OpenPrints()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.State == ledgercache.PrintSent {
			if _, err := t.book.FinishPrint(ctx, j.ID, ledgercache.PrintUnknown); err != nil {
				return ignoreEnd(ctx, err)
			}
		}
	}
	return nil
}

// printQueued prints what is queued. waiting says that a job is left because the printer is not ready.
func (t *Till) printQueued(ctx context.Context) (waiting bool, err error) {
	jobs, err := t.book.OpenPrints()
	if err != nil {
		return false, err
	}
	for _, j := range jobs {
		if ctx.Err() != nil {
			return false, nil
		}
		if t.o.Now().Sub(j.QueuedAt) >= printWithin {
			if _, err := t.book.FinishPrint(ctx, j.ID, ledgercache.PrintFailed); err != nil {
				return false, err
			}
			continue
		}
		if !t.o.Printer.Ready() {
			waiting = true
			continue
		}
		later, err := t.printOne(ctx, j)
		if err != nil {
			return false, err
		}
		waiting = waiting || later
	}
	return waiting, nil
}

// printOne prints one job. The printer makes the job's sent durable just before its first byte leaves; a job that failed
// before that stays queued and is tried again.
func (t *Till) printOne(ctx context.Context, j ledgercache.PrintJob) (later bool, err error) {
	doc, err := t.document(j)
	if err != nil {
		t.log.Error("receipt cannot be made", slog.String("job", j.ID), slog.Any("err", err))
		_, err = t.book.FinishPrint(ctx, j.ID, ledgercache.PrintFailed)
		return false, err
	}
	state := t.o.Printer.Print(ctx, j.ID, doc)
	if now, err := t.book.Print(j.ID); err != nil {
		return false, err
	} else if now.State == ledgercache.PrintQueued {
		return true, nil
	}
	_, err = t.book.FinishPrint(context.WithoutCancel(ctx), j.ID, state)
	return false, err
}

// Print queues another copy of the receipt, marked 重打印 with its number. A trade that is not paid fails with
// ledgercache.ErrNotPaid.
func (t *Till) Print(ctx context.Context, outTradeNo, operatorID string) (ledgercache.PrintJob, error) {
	p, err := t.book.Trade(outTradeNo)
	if err != nil {
		return ledgercache.PrintJob{}, err
	}
	return t.book.QueuePrint(ctx, p.TradeNo, operatorID)
}
