package main_test

import (
	"bufio"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAKilledDemoLeavesNoTerminalBehind(t *testing.T) {
	w := startWorld(t)
	pid := int(w.sim("GET", "/terminal", nil)["pid"].(float64))
	w.cmd.Process.Kill()
	w.cmd.Wait()
	for end := time.Now().Add(15 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) { // it is no child of ours
		if time.Now().After(end) {
			t.Fatal("the terminal outlives the demo")
		}
	}
	if resp, err := http.Get(w.address.Till + "/readyz"); err == nil {
		resp.Body.Close()
		t.Error("something still answers on its port")
	}
}

func TestADemoThatIsAskedToEndEndsWithZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		w := startWorld(t)
		w.cmd.Process.Signal(sig)
		if err := w.cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, tail(w.log.String(), 3000))
		}
	}
}

func TestForPeopleTheDemoPrintsWhatToExport(t *testing.T) {
	cmd := exec.Command(possim(t), "demo", "--port", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var text strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "Ctrl-C") {
			break
		}
	}
	for _, want := range []string{"收银台", "/office", "/display", "/phone/", "wss://127.0.0.1:", "export POSCTL_ADDR=http://127.0.0.1:", "export POSCTL_TOKEN="} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing:\n%s", want, &text)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
