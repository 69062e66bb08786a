package money

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestParseYuanTakesWhatPeopleType(t *testing.T) {
	for text, want := range map[string]Fen{
		"12.50": 1250, "12.5": 1250, "12": 1200, "0.01": 1, "¥1,250.00": 125000, "￥8": 800, " 7 ": 700,
		"42949672.95": Max, "1,234,567.89": 123456789, "00012.50": 1250,
	} {
		if got, err := ParseYuan(text); err != nil || got != want {
			t.Errorf("ParseYuan(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseYuanRefusesEverythingElseByName(t *testing.T) {
	for text, want := range map[string]error{
		"": ErrSyntax, ".": ErrSyntax, "12.": ErrSyntax, ".5": ErrSyntax, "12.505": ErrSyntax, "-1": ErrSyntax, "+1": ErrSyntax,
		"1e3": ErrSyntax, "12,50": ErrSyntax, "1,2345": ErrSyntax, "0x10": ErrSyntax, "１２": ErrSyntax, "$5": ErrSyntax,
		"0": ErrRange, "0.00": ErrRange, "42949672.96": ErrRange, "99999999999999999999": ErrRange,
	} {
		if got, err := ParseYuan(text); !errors.Is(err, want) {
			t.Errorf("ParseYuan(%q) = %d, %v; want %v", text, got, err, want)
		}
	}
}

func TestSumsNeverWrap(t *testing.T) {
	if _, err := Add(math.MaxInt64, 1); !errors.Is(err, ErrOverflow) {
		t.Errorf("Add at the top: %v", err)
	}
	if _, err := Sub(math.MinInt64, 1); !errors.Is(err, ErrOverflow) {
		t.Errorf("Sub at the bottom: %v", err)
	}
	if _, err := Sub(0, math.MinInt64); !errors.Is(err, ErrOverflow) {
		t.Errorf("Sub of the smallest: %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := Fen(rapid.Int64().Draw(t, "a")), Fen(rapid.Int64().Draw(t, "b"))
		exact := new(big.Int).Add(big.NewInt(int64(a)), big.NewInt(int64(b)))
		got, err := Add(a, b)
		if exact.IsInt64() != (err == nil) || err == nil && int64(got) != exact.Int64() {
			t.Fatalf("Add(%d, %d) = %d, %v", a, b, got, err)
		}
	})
}

func TestShareIsExactAndRoundsHalfUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Int64Range(0, int64(Max)*1000).Draw(t, "f")
		whole := rapid.Int64Range(1, int64(Max)*1000).Draw(t, "whole")
		part := rapid.Int64Range(0, whole).Draw(t, "part")
		got, err := Share(Fen(f), Fen(part), Fen(whole))
		if err != nil {
			t.Fatal(err)
		}
		// floor((2·f·part + whole) / (2·whole)) is half up, by definition.
		n := new(big.Int).Mul(big.NewInt(2*f), big.NewInt(part))
		n.Add(n, big.NewInt(whole)).Div(n, new(big.Int).Mul(big.NewInt(2), big.NewInt(whole)))
		if n.Int64() != int64(got) {
			t.Fatalf("Share(%d, %d, %d) = %d, want %s", f, part, whole, got, n)
		}
	})
}

func TestFeesAreBasisPointsHalfUp(t *testing.T) {
	for _, c := range []struct {
		f    Fen
		rate int
		want Fen
	}{{1250, 38, 5}, {1, 38, 0}, {10000, 38, 38}, {100, 50, 1}, {99, 50, 0}, {1250, 0, 0}} {
		if got, err := BasisPoints(c.f, c.rate); err != nil || got != c.want {
			t.Errorf("BasisPoints(%d, %d) = %d, %v; want %d", c.f, c.rate, got, err, c.want)
		}
	}
}

func TestAmountsAreWrittenTheWayTheyAreRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Fen(rapid.Int64Range(1, int64(Max)).Draw(t, "fen"))
		for _, text := range []string{f.Yuan(), f.String()} {
			if back, err := ParseYuan(text); err != nil || back != f {
				t.Fatalf("%q came back as %d, %v", text, back, err)
			}
		}
	})
	if got := Fen(-1250).String(); got != "-¥12.50" {
		t.Errorf("negative: %q", got)
	}
	if got := Fen(math.MinInt64).Yuan(); got != "-92233720368547758.08" {
		t.Errorf("smallest: %q", got)
	}
}

func TestOtherCurrenciesAreRefusedByName(t *testing.T) {
	if err := CheckCurrency("USD"); !errors.Is(err, ErrCurrency) || err.Error() != `money: only CNY is accepted, not "USD"` {
		t.Errorf("USD: %v", err)
	}
	if err := CheckCurrency("CNY"); err != nil {
		t.Errorf("CNY: %v", err)
	}
}
