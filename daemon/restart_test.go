package daemon

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"yupos/ledgercache"
)

func TestAProcessBeginsAgainAtOnceAfterOneSealAndWaitsLongerAfterEachMore(t *testing.T) {
	now := time.Unix(1795442400, 0)
	env := ""
	for i, wait := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second} {
		var again bool
		if env, again = restarts(fmt.Errorf("till: %w", ledgercache.ErrSealed), env, now); !again {
			t.Fatal("the process ends for good")
		}
		s := sealsOf(env)
		if s.n != i+1 || s.wait() != wait {
			t.Errorf("seal %d: %+v waits %s, want %s", i+1, s, s.wait(), wait)
		}
		if why := s.readOnly(now); (why != nil) != (wait > 0) || wait > 0 && !errors.Is(why, ledgercache.ErrDiskFailed) {
			t.Errorf("seal %d: %v", i+1, why)
		}
		if s.readOnly(now.Add(wait)) != nil || s.readOnly(now.Add(-time.Hour)) != nil {
			t.Errorf("seal %d holds the book up for too long", i+1)
		}
		now = now.Add(time.Minute)
	}
	for range 40 {
		env, _ = restarts(ledgercache.ErrSealed, env, now)
	}
	if w := sealsOf(env).wait(); w != sealedWithin {
		t.Errorf("the longest wait is %s", w)
	}
	if env, _ = restarts(ledgercache.ErrSealed, env, now.Add(sealedWithin+time.Second)); sealsOf(env).n != 1 {
		t.Errorf("a disk that was well for long is not given another chance: %q", env)
	}
}

func TestOnlyASealedOrMendedBookBeginsAgain(t *testing.T) {
	now := time.Unix(1795442400, 0)
	for _, c := range []struct {
		name  string
		err   error
		again bool
		env   string
	}{
		{"an orderly end", nil, false, ""},
		{"a part that failed", errors.New("printer: unknown profile"), false, ""},
		{"closed", ledgercache.ErrClosed, false, ""},
		{"mended", fmt.Errorf("mend: %w", errMended), true, "2 1"},
		{"sealed", errors.Join(fmt.Errorf("line: %w", ledgercache.ErrSealed), nil), true, "1 1795442400"},
		{"sealed because the disk is full", fmt.Errorf("%w: %w", ledgercache.ErrSealed, ledgercache.ErrDiskFull), true, "2 1"},
	} {
		if env, again := restarts(c.err, "2 1", now); again != c.again || env != c.env {
			t.Errorf("%s: %v %q", c.name, again, env)
		}
	}
}

func TestWhatTheEnvironmentSaysOfSealsIsReadOrIgnored(t *testing.T) {
	for _, env := range []string{"", "x", "-1 5", "0 5", "3", "3 x"} {
		if s := sealsOf(env); s != (seals{}) || s.readOnly(time.Now()) != nil {
			t.Errorf("%q: %+v", env, s)
		}
	}
	want := seals{n: 3, last: time.Unix(1795442400, 0)}
	if got := sealsOf(want.env()); got != want {
		t.Errorf("%+v", got)
	}
}
