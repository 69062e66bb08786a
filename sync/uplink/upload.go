package uplink

import (
	"log/slog"
	"slices"
	"time"

	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// The bounds of the upload lane. A batch grows only while the line answers quickly: on a slow one it stays so small that a
// live pay never stands behind much.
const (
	uploadFirst   = 8                      // items of a connection's first batch
	uploadFlights = 8                      // batches without an answer, at most
	uploadQuick   = 500 * time.Millisecond // an answer within widens the lane
	uploadSlow    = 2 * time.Second        // one beyond makes it narrow again
	uploadLimit   = 10 * time.Second       // then the batch is sent again by the schedule of its trades
	uploadRest    = time.Hour              // of one that the ledger definitely refused
	uploadPass    = 60 * time.Second       // at most, between two looks at what is left
	uploadRoom    = wire.MaxFrame - 512    // bytes of all items of one batch
	maxHeld       = 500
)

// uploading walks over the offline acceptances of the book, again and again until none is left. It holds the trades of the
// batches in flight and no others.
type uploading struct {
	after   string // the pass has come so far
	looking bool   // the book is being read or written for the next batch
	idle    bool   // the pass is over
	again   time.Time
	missed  bool // something came behind the pass

	flying map[string]bool // trades in flight
	flight []uint64        // batches in flight, oldest first
	size   int             // items of the next batch
	room   int             // batches that may fly
	alone  map[string]bool // trades of a batch that was refused whole: each goes by itself
	hold   time.Time       // the ledger wants rest

	judged [][]payment.Answered // answers on their way to the book, in order
	saving bool
}

func newUploading() uploading {
	return uploading{flying: map[string]bool{}, alone: map[string]bool{}, size: uploadFirst, room: 1}
}

// poke says that there may be something to upload.
func (l *uploading) poke() {
	if l.idle {
		l.idle, l.after = false, ""
		return
	}
	l.missed = true
}

// due is when to look at the book again.
func (l *uploading) due() (time.Time, bool) {
	switch {
	case l.looking || len(l.flight) >= l.room || len(l.judged) >= uploadFlights:
		return time.Time{}, false
	case l.idle && l.again.IsZero():
		return time.Time{}, false
	case l.idle:
		return later(l.again, l.hold), true
	}
	return l.hold, true
}

// uploadDue is when the next batch may begin: never while frames wait for the writer.
func (t *talk) uploadDue(now time.Time) (time.Time, bool) {
	at, ok := t.uploads.due()
	if t.version < 2 || !ok {
		return at, false
	}
	if len(t.out) > 0 {
		at = later(at, now.Add(outPause))
	}
	return at, true
}

// upload begins the next batch if the lane has room and nobody at the counter waits for the line.
func (t *talk) upload(now time.Time) {
	l := &t.uploads
	at, ok := t.uploadDue(now)
	if !ok || at.After(now) || t.err != nil || t.u.isStopping() {
		return
	}
	if l.idle {
		l.idle, l.after, l.again = false, "", time.Time{}
	}
	l.looking = true
	after, size := l.after, l.size
	skip := make(map[string]bool, len(l.flying))
	for no := range l.flying {
		skip[no] = true
	}
	t.besideLoop(func() func() {
		page, next, err := t.u.book.OpenWork(payment.LaneUpload, after, size+len(skip))
		if err != nil {
			return func() { t.uploadFailed(err) }
		}
		return func() { t.choose(page, next == "", size, skip) }
	})
}

func (t *talk) uploadFailed(err error) {
	l := &t.uploads
	l.looking, l.idle, l.again = false, true, t.u.now().Add(time.Second)
	t.bookFailed(err, "uploads not recorded, not sent")
}

// choose takes the next batch from a page of the book: what is due, not in flight, and fits a frame.
func (t *talk) choose(page []payment.Payment, last bool, size int, skip map[string]bool) {
	l := &t.uploads
	now := t.u.now()
	var nos []string
	bytes := 0
	for i, p := range page {
		at := t.uploadAt(p, now)
		if !skip[p.TradeNo] && at.After(now) {
			if l.again.IsZero() || at.Before(l.again) {
				l.again = at
			}
		}
		if skip[p.TradeNo] || at.After(now) {
			l.after = p.TradeNo
			continue
		}
		bytes += itemRoom(p)
		if len(nos) == size || len(nos) > 0 && (bytes > uploadRoom || l.alone[p.TradeNo]) {
			last = false
			break
		}
		nos, l.after = append(nos, p.TradeNo), p.TradeNo
		if l.alone[p.TradeNo] {
			last = last && i == len(page)-1
			break
		}
	}
	if last {
		t.passOver(now)
	}
	if len(nos) == 0 {
		l.looking = false
		return
	}
	t.sendUploads(nos)
}

// passOver ends a pass over the book. What is in flight comes again by itself if it must.
func (t *talk) passOver(now time.Time) {
	l := &t.uploads
	l.idle, l.after = true, ""
	if l.missed {
		l.missed, l.again = false, now
	}
	if !l.again.IsZero() && l.again.After(now.Add(uploadPass)) {
		l.again = now.Add(uploadPass)
	}
}

// uploadAt is when the upload of p is due: at once the first time, then by the schedule of the payment.
func (t *talk) uploadAt(p payment.Payment, now time.Time) time.Time {
	_, at := p.Due(now, time.Time{})
	return later(notBeyond(at, p.LastAskAt, now), t.u.held[p.TradeNo])
}

// itemRoom is how long the item of p may be in a frame: texts may be escaped, six bytes for one.
func itemRoom(p payment.Payment) int {
	return 256 + len(p.Code) + 4*(len(p.Accept)+2)/3 + 6*(len(p.OutTradeNo)+len(p.Subject)+len(p.OperatorID))
}

// sendUploads records a batch beside the loop and sends it then. Encoding it is done there, too.
func (t *talk) sendUploads(nos []string) {
	t.lastID++
	id := t.lastID
	for _, no := range nos {
		t.uploads.flying[no] = true
	}
	t.besideLoop(func() func() {
		list, err := t.u.book.RecordUploads(t.ctx, nos)
		if err != nil {
			return func() { t.landed(nos); t.uploadFailed(err) }
		}
		frame, err := wire.Encode(id, 0, uploadOf(list))
		return func() { t.uploadReady(id, nos, len(list), frame, err) }
	})
}

func uploadOf(list []payment.Payment) wire.Upload {
	m := wire.Upload{Items: make([]wire.Acceptance, 0, len(list))}
	for _, p := range list {
		m.Items = append(m.Items, wire.Acceptance{
			TradeNo: p.TradeNo, OutTradeNo: p.OutTradeNo, TotalFen: p.TotalFen, Subject: p.Subject, OperatorID: p.OperatorID,
			Code: wire.Code(p.Code), Accept: p.Accept, Withdrawn: p.Withdrawn, Repeat: p.UploadAsks > 1,
		})
	}
	return m
}

func (t *talk) uploadReady(id uint64, nos []string, n int, frame []byte, err error) {
	l := &t.uploads
	l.looking = false
	if err != nil || n == 0 || t.err != nil {
		t.landed(nos)
		if err != nil {
			t.log.Error("uploads cannot be sent", slog.Any("err", err))
		}
		return
	}
	now := t.u.now()
	t.asked[id] = &request{op: payment.OpUpload, trades: nos, at: now}
	l.flight = append(l.flight, id)
	t.log.Debug("sent", slog.String("type", wire.TypeUpload), slog.Uint64("id", id), slog.Int("items", n))
	t.put(frame)
}

// landed takes trades out of flight.
func (t *talk) landed(nos []string) {
	for _, no := range nos {
		delete(t.uploads.flying, no)
	}
}

// expireUploads gives up waiting for batches that had their time. Their answers are still welcome.
func (t *talk) expireUploads(now time.Time) {
	l := &t.uploads
	for len(l.flight) > 0 {
		id := l.flight[0]
		r := t.asked[id]
		if r != nil && now.Sub(r.at) < uploadLimit {
			return
		}
		l.flight = l.flight[1:]
		if r != nil {
			t.landed(r.trades)
			l.room, l.size = 1, max(1, l.size/2)
			l.poke()
			t.keepLate(id)
		}
	}
}

// endFlight takes the answer to a batch: how long it took decides how wide the lane is.
func (t *talk) endFlight(id uint64, r *request) {
	l := &t.uploads
	delete(t.asked, id)
	at := slices.Index(l.flight, id)
	if at < 0 {
		return // later than its time
	}
	l.flight = slices.Delete(l.flight, at, at+1)
	t.landed(r.trades)
	switch took := t.u.now().Sub(r.at); {
	case took > uploadSlow:
		l.room, l.size = 1, max(1, l.size/2)
	case took < uploadQuick:
		l.room, l.size = min(uploadFlights, l.room+1), min(wire.MaxUploads, l.size*2)
	}
}

// uploaded takes the judgements of a batch. What was neither judged nor refused comes again by its schedule.
func (t *talk) uploaded(re uint64, body *wire.Uploaded) {
	r := t.asked[re]
	if r == nil {
		t.odd("answer to nothing", wire.TypeUploaded)
		return
	}
	asked := map[string]bool{}
	for _, no := range r.trades {
		asked[no] = true
	}
	judged := make([]payment.Answered, 0, len(body.Outcomes))
	for i := range body.Outcomes {
		o := &body.Outcomes[i]
		if r.op != payment.OpUpload || !asked[o.TradeNo] {
			t.fail(errStranger)
			return
		}
		a := answered(o)
		a.To = payment.OpUpload
		judged = append(judged, a)
	}
	for _, no := range body.Refused {
		if r.op != payment.OpUpload || !asked[no.TradeNo] {
			t.fail(errStranger)
			return
		}
		t.uploadRefused(no)
	}
	t.endFlight(re, r)
	if len(judged) < len(r.trades) {
		t.uploads.poke() // what was not judged is looked at again
	}
	if len(judged) > 0 {
		t.waiting++
		t.uploads.judged = append(t.uploads.judged, judged)
		t.saveJudged()
	}
}

// saveJudged hands one batch of judgements to the book, in order.
func (t *talk) saveJudged() {
	l := &t.uploads
	if l.saving || len(l.judged) == 0 {
		return
	}
	l.saving = true
	batch := l.judged[0]
	l.judged = l.judged[1:]
	t.besideLoop(func() func() {
		err := t.u.book.AnswerUploads(t.ctx, batch)
		return func() {
			l.saving = false
			t.waiting--
			if err != nil {
				t.bookFailed(err, "judgements not taken by the book")
			}
			t.saveJudged()
		}
	})
}

// uploadRefused keeps one item that the ledger refused: for the time that it names, or aside where a person sees it.
func (t *talk) uploadRefused(no wire.RefusedUpload) {
	wait := min(time.Duration(max(no.RetryAfterMillis, 0))*time.Millisecond, maxRetryWait)
	switch {
	case wait > 0:
	case no.Code == wire.RefusedBusy, no.Code == wire.RefusedInternal:
		wait = time.Second
	default:
		wait = uploadRest
		t.asideUpload(no.TradeNo, no.Code, no.Detail)
	}
	t.holdUpload(no.TradeNo, wait)
}

func (t *talk) asideUpload(tradeNo, code, detail string) {
	if t.u.putAside(Aside{At: t.u.now(), TradeNo: tradeNo, Op: payment.OpUpload, Code: code, Detail: detail}) {
		t.log.Error("upload refused and set aside", slog.String("code", code), slog.String("trade_no", tradeNo))
	}
}

// holdUpload lets one trade rest; of more than maxHeld the one that ends first is forgotten, and only asks too early.
func (t *talk) holdUpload(tradeNo string, wait time.Duration) {
	t.u.held[tradeNo] = t.u.now().Add(wait)
	if len(t.u.held) <= maxHeld {
		return
	}
	first := tradeNo
	for no, at := range t.u.held {
		if at.Before(t.u.held[first]) {
			first = no
		}
	}
	delete(t.u.held, first)
}

// uploadsRefused takes a no to a whole batch. Each of its trades then goes alone, so that the one that is at fault is found
// and holds up no other.
func (t *talk) uploadsRefused(re uint64, r *request, no *wire.Refused, wait time.Duration) {
	t.endFlight(re, r)
	l := &t.uploads
	l.room = 1
	switch {
	case wait > 0:
		l.hold = t.u.now().Add(wait)
	case no.Code == wire.RefusedBusy, no.Code == wire.RefusedInternal:
		l.hold = t.u.now().Add(time.Second)
	case len(r.trades) == 1:
		delete(l.alone, r.trades[0])
		t.asideUpload(r.trades[0], no.Code, no.Detail)
		t.holdUpload(r.trades[0], uploadRest)
	default:
		for _, no := range r.trades {
			l.alone[no] = true
		}
	}
	l.poke()
}
