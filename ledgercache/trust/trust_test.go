package trust

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var aKey = strings.Repeat("ab", 32)

func TestAKeyIsBelievedOnlyInItsRoleAndWindow(t *testing.T) {
	pins, err := ParsePins([]byte(`{"keys":[{"role":"issuer","public":"` + aKey + `","not_before":100,"not_after":200},{"role":"root","public":"` + aKey + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for second, want := range map[int64]int{99: 0, 100: 1, 200: 1, 201: 0} {
		if got := len(pins.Keys(Issuer, time.Unix(second, 0))); got != want {
			t.Errorf("at %d: %d keys, want %d", second, got, want)
		}
	}
	if len(pins.Keys(Root, time.Unix(1, 0))) != 1 || len(pins.Keys(Receipt, time.Unix(150, 0))) != 0 {
		t.Error("a key without a window is always believed, and only in its role")
	}
}

func TestBadPinsAreRefusedByName(t *testing.T) {
	for name, raw := range map[string]string{
		"no json":                        `keys`,
		"short key":                      `{"keys":[{"role":"issuer","public":"abcd"}]}`,
		"unknown role":                   `{"keys":[{"role":"king","public":"` + aKey + `"}]}`,
		"a window with a letter missing": `{"keys":[{"role":"issuer","public":"` + aKey + `","not_befor":1,"not_afte":2}]}`,
		"something after the keys":       `{"keys":[]} {"keys":[]}`,
		"a list under another name":      `{"keyz":[]}`,
		"window":                         `{"keys":[{"role":"issuer","public":"` + aKey + `","not_before":2,"not_after":1}]}`,
	} {
		if _, err := ParsePins([]byte(raw)); !errors.Is(err, ErrPins) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
