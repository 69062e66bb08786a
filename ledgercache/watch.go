package ledgercache

// ChangeKind says what a change is about.
type ChangeKind string

// The kinds of changes.
const (
	ChangeTrade  ChangeKind = "trade"
	ChangeRefund ChangeKind = "refund"
	ChangePrint  ChangeKind = "print"
	ChangeShift  ChangeKind = "shift"
	ChangeDay    ChangeKind = "day" // a Z was made
	ChangeCursor ChangeKind = "cursor"
	ChangeAlarm  ChangeKind = "alarm"
	ChangeNews   ChangeKind = "news"  // signed news are in force
	ChangeSpace  ChangeKind = "space" // of the disk
)

// Change names what changed. It carries ids, never truth: who is told reads the book.
type Change struct {
	Kind     ChangeKind
	TradeNo  string
	RefundNo string
	JobID    string
}

// watchBuffer is how many changes a watcher may be behind before it is dropped.
const watchBuffer = 1024

// Watcher is told of every change after Watch returned, in the book's order. When C is closed the watcher fell behind,
// or the book was closed: re-read and watch again.
type Watcher struct {
	C    <-chan Change
	c    chan Change
	book *Book
	gone bool // guarded by book.mu
}

// Watch begins to watch. End it with Close.
func (b *Book) Watch() *Watcher {
	c := make(chan Change, watchBuffer)
	w := &Watcher{C: c, c: c, book: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		w.drop()
		return w
	}
	b.watchers[w] = struct{}{}
	return w
}

// Close ends the watching. It may be called more than once.
func (w *Watcher) Close() {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	w.drop()
}

// drop forgets the watcher; book.mu is held.
func (w *Watcher) drop() {
	if w.gone {
		return
	}
	w.gone = true
	delete(w.book.watchers, w)
	close(w.c)
}

// tell passes changes on without ever waiting for a watcher.
func (b *Book) tell(changes []Change) {
	if len(changes) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watchers {
		for _, c := range changes {
			select {
			case w.c <- c:
				continue
			default:
				w.drop()
			}
			break
		}
	}
}
