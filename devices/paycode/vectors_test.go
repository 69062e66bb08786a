package paycode

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"yupos/ledgercache/money"
)

type vectorFile struct {
	Keys          map[string]string
	Confirmations []struct {
		TerminalID string `json:"terminal_id"`
		Order      string
		AmountFen  money.Fen `json:"amount_fen"`
		Digits     string
	}
	EMVCo struct {
		Merchant string   `json:"merchant_presented_good"`
		Consumer []string `json:"consumer_presented_good"`
	}
	Vectors []map[string]any
}

func loadVectors(t testing.TB) vectorFile {
	t.Helper()
	b, err := os.ReadFile("testdata/codes.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// bytesOf returns the named key material of the vectors.
func (f vectorFile) bytesOf(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(f.Keys[name])
	if err != nil || len(b) != 32 {
		t.Fatalf("key %s: %v", name, err)
	}
	return b
}

func (f vectorFile) inspectKeys(t testing.TB) InspectKeys {
	var k InspectKeys
	k.Issuer = append(k.Issuer, f.bytesOf(t, "issuer_public"))
	k.Ledger = append(k.Ledger, f.bytesOf(t, "ledger_public"))
	k.Terminal = append(k.Terminal, f.bytesOf(t, "terminal_public"))
	return k
}

// text returns the text of the vector with that name.
func (f vectorFile) text(t testing.TB, name string) string {
	t.Helper()
	for _, v := range f.Vectors {
		if v["name"] == name {
			return v["text"].(string)
		}
	}
	t.Fatalf("no vector %q", name)
	return ""
}

func TestEveryVectorGetsItsExactVerdict(t *testing.T) {
	f := loadVectors(t)
	keys := f.inspectKeys(t)
	for _, v := range f.Vectors {
		t.Run(v["name"].(string), func(t *testing.T) {
			now := time.Unix(int64(v["now"].(float64)), 0)
			b, err := json.Marshal(Inspect(v["text"].(string), keys, now))
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			wantVerdict, wantReason := "OK", ""
			if v["verdict"] != "OK" {
				wantVerdict, wantReason = "REFUSED", v["verdict"].(string)
			}
			if got["kind"] != v["kind"] || got["verdict"] != wantVerdict || got["reason"] != wantReason {
				t.Errorf("got %s", b)
			}
			fields := got["fields"].(map[string]any)
			for name, want := range v {
				switch name {
				case "name", "kind", "text", "now", "verdict":
				default:
					if fields[name] != want {
						t.Errorf("field %s = %v, want %v", name, fields[name], want)
					}
				}
			}
		})
	}
}

func TestConfirmationDigitsOfTheVectors(t *testing.T) {
	f := loadVectors(t)
	secret := [32]byte(f.bytesOf(t, "confirmation_secret"))
	for _, c := range f.Confirmations {
		if got, err := Digits(secret, c.TerminalID, c.Order, c.AmountFen); err != nil || got != c.Digits {
			t.Errorf("Digits(%s) = %q, %v; want %q", c.Order, got, err, c.Digits)
		}
	}
}

func TestGoodEMVCoVectorsAreRead(t *testing.T) {
	f := loadVectors(t)
	m, err := ParseMerchant(f.EMVCo.Merchant)
	if err != nil {
		t.Fatal(err)
	}
	if name, _ := m.Value("59"); name != "BEST TRANSPORT" {
		t.Errorf("merchant name %q", name)
	}
	if city, _ := fieldValue(m.Template("64")[0], "01"); city != "最佳运输" {
		t.Errorf("name in Chinese %q", city)
	}
	for _, text := range f.EMVCo.Consumer {
		if _, err := ParseConsumer(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
