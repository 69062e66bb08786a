package ledgercache

import (
	"context"
	"errors"
	"time"

	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// This file holds what the book knows of time: the last signed time that was kept for the next process, and the last
// journalled time, behind which nothing is accepted offline.

// KeepTime journals a time for the next process. Where the ledger has signed it, the last journalled time is the step's own
// from then on, even if a clock that was ahead has journalled later ones: the ledger's word ends its reign.
func (b *Book) KeepTime(ctx context.Context, m trust.TimeMark) error {
	return b.do(ctx, func(t *tx) error {
		if err := t.emit(recTime, m); err != nil {
			return err
		}
		t.timed = t.timed || !m.Wall
		return nil
	})
}

// KnownTime is the last signed time that was kept, the zero TimeMark if there is none, and the last journalled time. It is
// true for the time before the first step of this process.
func (b *Book) KnownTime() (m trust.TimeMark, last time.Time, err error) {
	err = b.view(func(s state) error {
		var mark appliedMark
		if err := get(s, keyApplied, &mark); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if mark.At > 0 {
			last = time.UnixMilli(mark.At).UTC()
		}
		if err := get(s, keyTime, &m); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return m, last, err
}

// latest is the last journalled time after a record, in Unix milliseconds.
func latest(before int64, r record) int64 {
	if r.Kind == recTime {
		if m, err := body[trust.TimeMark](r); err == nil && !m.Wall {
			return r.At
		}
	}
	return max(before, r.At)
}

// recollect takes from the book what this process must know before the first step: the time, and which pays are not its own.
func (b *Book) recollect() error {
	b.before = map[string]int{}
	if b.opts.ReadOnly != nil || b.reading != nil {
		return nil // nothing is taken, and nothing is sent
	}
	if b.opts.Clock != nil {
		mark, last, err := b.KnownTime()
		if err != nil {
			return err
		}
		b.opts.Clock.Restore(mark, last)
	}
	for after := ""; ; {
		page, next, err := b.OpenWork(payment.LaneLive, after, 1000)
		if err != nil {
			return err
		}
		for _, p := range page {
			if p.Mode == payment.ByCode {
				b.before[p.TradeNo] = p.Attempt
			}
		}
		if after = next; next == "" {
			return nil
		}
	}
}

// Inherited reports whether the pay of p was submitted by an earlier process, so that it may have left: it is never sent
// again. The times of the records do not tell: the machine's clock may have been set back in between.
func (b *Book) Inherited(p payment.Payment) bool {
	attempt, ok := b.before[p.TradeNo]
	return ok && p.Attempt <= attempt
}
