package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopDisk is an ext4 file system in a file, under the terminal's book. It can be pulled out and put back.
type loopDisk struct {
	t          *testing.T
	image, dir string
}

// worldOnLoopDisk starts a world whose book lies on an ext4 of its own; without loop devices the test is skipped.
func worldOnLoopDisk(t *testing.T) (*world, *loopDisk) {
	t.Helper()
	dir := t.TempDir()
	d := &loopDisk{t: t, image: filepath.Join(t.TempDir(), "disk"), dir: filepath.Join(dir, "posd", "book")}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(300 << 20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no file system can be made: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no real disk without loop devices and the right to mount one: %v %s", err, out)
	}
	t.Cleanup(func() { d.run("umount", "-l", d.dir) })
	return startWorldIn(t, dir), d
}

func (d *loopDisk) run(args ...string) {
	d.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %v %s", args, err, out)
	}
}

// pull makes every read and write of the disk fail from now on, as when its plug is pulled.
func (d *loopDisk) pull() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	const ext4Shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		d.t.Skipf("SKIPPED: this kernel cannot pull a disk: %v", err)
	}
}

// stopped waits until the terminal is there, alive, not ready, and says that the book stands still.
func (w *world) stopped(starts int) {
	w.t.Helper()
	w.until("a terminal that is not ready because of its book", 40*time.Second, func() bool {
		status, answer, err := w.ask("/readyz")
		return err == nil && status == 503 && answer["code"] == "BOOK_STOPPED" && w.starts() == starts
	})
	if status, _, err := w.ask("/healthz"); status != 200 || err != nil {
		w.t.Errorf("not alive: %d %v", status, err)
	}
}

func (w *world) ready() {
	w.t.Helper()
	w.until("ready by itself", 60*time.Second, func() bool { status, _, err := w.ask("/readyz"); return err == nil && status == 200 })
}

func TestWithAReadOnlyDiskTheTerminalAnswersQuestionsAndGoesOnWhenTheDiskIsWellAgain(t *testing.T) {
	t.Parallel()
	w, d := worldOnLoopDisk(t)
	no := w.number()
	w.pay(no, 1250, w.code("13800000001", "ONLINE"))
	pid := int(w.sim("GET", "/terminal", nil)["pid"].(float64))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("the disk is read-only", 2*time.Second, func() bool { return exec.Command("mount", "-o", "remount,ro", d.dir).Run() == nil })
	w.stopped(2)
	if trade := w.api(200, "GET", "/v1/trade/"+no, nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.api(404, "GET", "/v1/trade/NOBODY", nil)
	if p := w.api(503, "POST", "/v1/trade/pay", object{"out_trade_no": w.number(), "total_fen": 1, "auth_code": "861234567890123459"}); p["code"] != "BOOK_STOPPED" {
		t.Errorf("%v", p)
	}
	w.warns("BOOK_STOPPED", true)
	w.display("paused")
	d.run("mount", "-o", "remount,rw", d.dir)
	w.ready()
	w.pay(w.number(), 100, w.code("13800000003", "ONLINE"))
	w.bookAgreesWithLedger()
}

func TestADiskThatIsPulledOutStopsTheTerminalWithoutALieAndPutBackItGoesOn(t *testing.T) {
	t.Parallel()
	w, d := worldOnLoopDisk(t)
	no := w.number()
	w.pay(no, 1250, w.code("13800000001", "ONLINE"))
	before := w.balance("13800000002")
	code := w.code("13800000002", "ONLINE")
	d.pull()
	refused := w.number()
	// The receipt's own step may have met the disk first: then the terminal is starting again, and nobody answers.
	status, p, err := w.try("POST", "/v1/trade/pay?wait=5s", object{"out_trade_no": refused, "total_fen": 400, "auth_code": code})
	if err == nil && (status != 503 || p["code"] != "BOOK_STOPPED") {
		t.Errorf("%d %v", status, p)
	}
	w.stopped(2)
	// It cannot know, so it does not say that there is no such trade.
	if p := w.api(503, "GET", "/v1/trade/"+no, nil); p["code"] != "BOOK_STOPPED" {
		t.Errorf("%v", p)
	}
	w.display("paused")
	d.run("umount", "-l", d.dir)
	d.run("mount", "-o", "loop", d.image, d.dir)
	w.ready()
	if trade := w.api(200, "GET", "/v1/trade/"+no, nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	if took := before - w.balance("13800000002"); took != 0 {
		t.Errorf("the customer paid %v for a sale that was refused", took)
	}
	if n := w.starts(); n != 3 {
		t.Errorf("%d starts, want 3: at the beginning, sealed, with the disk back", n)
	}
	w.pay(refused, 400, w.code("13800000002", "ONLINE"))
	w.bookAgreesWithLedger()
}

func TestASecondTerminalOnTheSameBookIsRefusedByNameAndChangesNothing(t *testing.T) {
	w := startWorld(t)
	w.pay(w.number(), 1250, w.code("13800000001", "ONLINE"))
	pid := int(w.sim("GET", "/terminal", nil)["pid"].(float64))
	for address, want := range map[string][]string{
		"127.0.0.1:0": {"账本正被另一个进程使用", filepath.Join(w.dir, "posd", "book"), fmt.Sprintf("process %d", pid)},
		strings.TrimPrefix(w.address.Till, "http://"): {"端口已被占用", "address already in use"},
	} {
		second := exec.Command(possim(t), "posd", "serve", "-c", filepath.Join(w.dir, "posd", "posd.toml"))
		second.Env = append(os.Environ(), "POSD_WEB_LISTEN="+address)
		out, err := second.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v", address, err)
		}
		for _, words := range want {
			if !strings.Contains(string(out), words) {
				t.Errorf("%s: %q is not said:\n%s", address, words, out)
			}
		}
	}
	w.pay(w.number(), 100, w.code("13800000003", "ONLINE"))
	w.bookAgreesWithLedger()
}
