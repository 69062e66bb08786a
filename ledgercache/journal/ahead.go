package journal

import "sync"

// Verifying a segment needs its own header and nothing of the segments before it: that it follows them is judged behind it.
// So a few segments are walked ahead of that judgement, on all cores.

// Segments are walked by so many at once, and at most so many wait to be judged, each with an open file and a window.
const (
	aheadWalkers = 2
	aheadWaiting = 4
)

// walked is a segment that was walked to its end, or to where it does not verify.
type walked struct {
	w       *walker
	batches int   // above the synced witness
	unsure  int64 // offset of the first of them, 0 if there is none
	err     error // why it ended: errEnd at a good end
}

// ahead walks segments in order, ahead of who takes them.
type ahead struct {
	found []chan walked
	taken chan struct{}
	stop  chan struct{}
	group sync.WaitGroup
}

func walkAhead(d *shelf, segments []*segment, synced uint64) *ahead {
	a := &ahead{found: make([]chan walked, len(segments)), taken: make(chan struct{}, aheadWaiting), stop: make(chan struct{})}
	turns := make(chan int)
	for i := range a.found {
		a.found[i] = make(chan walked, 1)
	}
	a.group.Go(func() {
		defer close(turns)
		for i, seg := range segments {
			if seg == nil {
				return // the chain ends here
			}
			select {
			case a.taken <- struct{}{}:
			case <-a.stop:
				return
			}
			turns <- i
		}
	})
	for range aheadWalkers {
		a.group.Go(func() {
			for i := range turns {
				a.found[i] <- walk(d, segments[i], synced)
			}
		})
	}
	return a
}

// take waits for the i-th segment. Each is taken once, in order.
func (a *ahead) take(i int) walked {
	f := <-a.found[i]
	<-a.taken
	return f
}

// end closes what was walked and not taken.
func (a *ahead) end() {
	close(a.stop)
	a.group.Wait()
	for _, found := range a.found {
		select {
		case f := <-found:
			if f.w != nil {
				f.w.close()
			}
		default:
		}
	}
}

func walk(d *shelf, seg *segment, synced uint64) (f walked) {
	if f.w, f.err = newWalker(d.fs, d.path, seg); f.err != nil {
		return f
	}
	for {
		b, err := f.w.next()
		if err != nil {
			f.err = err
			return f
		}
		if b.head.Sequence > synced {
			if f.batches++; f.unsure == 0 {
				f.unsure = b.offset
			}
		}
	}
}
