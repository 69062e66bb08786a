package ledgercache

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/payment"
)

// PrintState is what is known of a piece of paper.
type PrintState string

// The states of a print job. Sent is durable before its first byte leaves, so that after a crash nothing is ever printed
// twice by itself: a job that was sent and not answered is unknown, and only a person asks for a copy.
const (
	PrintQueued  PrintState = "queued"
	PrintSent    PrintState = "sent"
	PrintPrinted PrintState = "printed"
	PrintFailed  PrintState = "failed"
	PrintUnknown PrintState = "unknown"
)

// Final reports whether nothing more happens to a job in this state.
func (s PrintState) Final() bool { return s == PrintPrinted || s == PrintFailed || s == PrintUnknown }

// PrintJob is one receipt on its way to paper. Copy counts from 1; above 1 it is marked 重打印.
type PrintJob struct {
	ID         string     `cbor:"1,keyasint,omitempty"` // ULID
	TradeNo    string     `cbor:"2,keyasint"`
	RefundNo   string     `cbor:"3,keyasint,omitempty"`
	Copy       int        `cbor:"4,keyasint"`
	OperatorID string     `cbor:"5,keyasint,omitempty"`
	State      PrintState `cbor:"6,keyasint"`
	QueuedAt   time.Time  `cbor:"7,keyasint"`
	ChangedAt  time.Time  `cbor:"8,keyasint,omitzero"`
}

// QueuePrint queues another copy of a paid trade's receipt. A trade that is not paid fails with ErrNotPaid.
func (b *Book) QueuePrint(ctx context.Context, tradeNo, operator string) (j PrintJob, err error) {
	err = b.do(ctx, func(t *tx) error {
		p, err := t.byTradeNo(tradeNo)
		if err != nil {
			return err
		}
		if p.State != payment.Success && p.State != payment.AcceptedOffline && p.State != payment.Revoked {
			return ErrNotPaid
		}
		j, err = t.queuePrint(p, "", operator)
		return err
	})
	return j, err
}

func (t *tx) queuePrint(p payment.Payment, refundNo, operator string) (PrintJob, error) {
	copyNo := 1
	if refundNo == "" {
		copyNo = p.Copies + 1
	}
	e := printQueued{ID: t.book.nextJob(t.at), TradeNo: p.TradeNo, RefundNo: refundNo, Copy: copyNo, OperatorID: operator}
	if err := t.emit(recPrintQueued, e); err != nil {
		return PrintJob{}, err
	}
	return t.print(e.ID)
}

// nextJob numbers a job so that jobs of one millisecond keep the order in which they were queued: jobs are printed in the
// order of their numbers. Only the writer calls it.
func (b *Book) nextJob(at time.Time) string {
	return ulid.MustNew(ulid.Timestamp(at), b.jobs).String()
}

// RecordPrintSent makes durable that the job's bytes are about to leave. A job that is not queued answers
// payment.ErrIllegalMove and must not be sent.
func (b *Book) RecordPrintSent(ctx context.Context, jobID string) (PrintJob, error) {
	return b.printStep(ctx, jobID, func(t *tx, j PrintJob) error {
		if j.State != PrintQueued {
			return payment.ErrIllegalMove
		}
		return t.emit(recPrintSent, printSent{ID: jobID})
	})
}

// FinishPrint records how a job ended; a job that has ended already is answered as it is.
func (b *Book) FinishPrint(ctx context.Context, jobID string, state PrintState) (PrintJob, error) {
	return b.printStep(ctx, jobID, func(t *tx, j PrintJob) error {
		if j.State.Final() {
			return nil
		}
		if !state.Final() {
			return payment.ErrIllegalMove
		}
		return t.emit(recPrintDone, printDone{ID: jobID, State: state})
	})
}

func (b *Book) printStep(ctx context.Context, jobID string, decide func(*tx, PrintJob) error) (j PrintJob, err error) {
	err = b.do(ctx, func(t *tx) error {
		if j, err = t.print(jobID); err != nil {
			return err
		}
		if err = decide(t, j); err != nil {
			return err
		}
		j, err = t.print(jobID)
		return err
	})
	return j, err
}

func (t *tx) print(jobID string) (j PrintJob, err error) {
	job, err := id(jobID)
	if err != nil {
		return j, err
	}
	return jobAt(t.state, job)
}

// jobAt reads a job; its number stands in the key alone.
func jobAt(s state, job []byte) (j PrintJob, err error) {
	err = get(s, key(prefixPrint, job), &j)
	j.ID = idText(job)
	return j, err
}

func putJob(s state, job []byte, j PrintJob) error {
	j.ID = ""
	return put(s, key(prefixPrint, job), j)
}
