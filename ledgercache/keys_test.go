package ledgercache

import (
	"os"
	"regexp"
	"testing"
)

// A letter that is given twice would lead a scan to what it does not look for.
func TestEveryLetterOfAKeyIsGivenOnce(t *testing.T) {
	source, err := os.ReadFile("keys.go")
	check(t, err)
	seen := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t((?:key|prefix)\w+)\s*= \[\]byte\("(.+)"\)`).FindAllStringSubmatch(string(source), -1) {
		if len(m[2]) != 1 || seen[m[2]] != "" {
			t.Errorf("%s is spelt %q, as is %s", m[1], m[2], seen[m[2]])
		}
		seen[m[2]] = m[1]
	}
	if len(seen) < 30 {
		t.Errorf("only %d keys were read", len(seen))
	}
}
