package receipt

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"yupos/devices/printer"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	shop     = Shop{DisplayName: "渝中小面", MerchantID: "653000053310001", TerminalID: "10000001"}
	at       = time.Date(2026, 11, 23, 4, 0, 5, 0, time.UTC) // noon in the shop
	bookHead = "0123456789abcdef"
)

// dots stands for the picture of a code: the profile of the test draws codes itself.
func dots(string) (printer.Bits, error) {
	return printer.Bits{WidthBytes: 1, Rows: 1, Bits: []byte{0x80}, Modules: 1}, nil
}

func sale() Sale {
	return Sale{
		Shop: shop, OutTradeNo: "A-20261123-0007", TradeNo: "01JDBXV2H3YQ4T5W6X7Y8Z9ABC", LedgerNo: "L202611230000007", TotalFen: 1250, PaidFen: 1250, Way: ByCustomerCode,
		At: at, OperatorID: "007", Subject: "小面 二两", Copy: 1, BookHead: bookHead,
	}
}

func saleWith(change func(*Sale)) printer.Document {
	s := sale()
	change(&s)
	d, err := OfSale(s, dots)
	if err != nil {
		panic(err) // dots never fails
	}
	return d
}

func refund(copyNo int) printer.Document {
	d, err := OfRefund(Refund{
		Shop: shop, OutRefundNo: "R-1", RefundNo: "01JDBXV2H3YQ4T5W6X7Y8Z9DEF", OutTradeNo: "A-20261123-0007", TradeNo: "01JDBXV2H3YQ4T5W6X7Y8Z9ABC",
		RefundFen: 250, At: at, OperatorID: "001", Note: "少了一份", Copy: copyNo, BookHead: bookHead,
	}, dots)
	if err != nil {
		panic(err) // dots never fails
	}
	return d
}

// cases are the papers that have a golden file of this name, and words that must and must not stand on them.
var cases = []struct {
	name      string
	paper     func() printer.Document
	has, lack []string
}{
	{"sale", func() printer.Document { return saleWith(func(*Sale) {}) },
		[]string{"渝中小面", "12.50", "收款成功", "2026-11-23 12:00:05", "账本 01234567\n", "收银员: 007", "终端 10000001"},
		[]string{"重打印", "优惠", "已退款", "89abcdef"}},
	{"sale-copy", func() printer.Document { return saleWith(func(s *Sale) { s.Copy = 2 }) },
		[]string{"*** 重打印 第1次 COPY 1 ***", "收款成功"}, nil},
	{"sale-discount", func() printer.Document { return saleWith(func(s *Sale) { s.PaidFen, s.DiscountFen = 1000, 250 }) },
		[]string{"优惠", "-2.50", "顾客实付", "10.00"}, nil},
	{"sale-offline", func() printer.Document {
		return saleWith(func(s *Sale) { s.Offline, s.Way, s.LedgerNo = true, ByOffline, "" })
	},
		[]string{"离线受理,待入账"}, []string{"收款成功", "账本号"}},
	{"sale-reversed", func() printer.Document {
		return saleWith(func(s *Sale) { s.Reversed, s.Offline, s.Way = true, true, ByOffline })
	},
		[]string{"已撤销"}, []string{"收款成功", "待入账"}},
	{"sale-refunded", func() printer.Document { return saleWith(func(s *Sale) { s.RefundedFen, s.Copy = 250, 3 }) },
		[]string{"已退款", "2.50", "重打印 第2次"}, nil},
	{"sale-bare", func() printer.Document {
		return saleWith(func(s *Sale) { s.Subject, s.OperatorID, s.LedgerNo, s.BookHead = "", "", "", "0123" })
	}, []string{"收款成功"}, []string{"商品", "收银员", "账本"}},
	{"refund", func() printer.Document { return refund(1) },
		[]string{"退款成功", "2.50", "原因: 少了一份", "退款号: R-1", "原订单号: A-20261123-0007"}, []string{"重打印", "收款成功"}},
	{"refund-copy", func() printer.Document { return refund(2) }, []string{"*** 重打印 第1次 COPY 1 ***", "退款成功"}, nil},
}

func encode(t *testing.T, d printer.Document) []byte {
	t.Helper()
	profile, err := printer.ProfileNamed("80mm")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := printer.Encode(d, profile)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// readable shows the bytes of a slip as a person can review them: GB18030 as text, one line a line, other bytes as \xNN.
func readable(t *testing.T, raw []byte) string {
	t.Helper()
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range string(text) {
		if r < ' ' && r != '\n' || r == 0x7F || r == '\uFFFD' {
			fmt.Fprintf(&b, "\\x%02X", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func TestThePaperIsTheGoldenOne(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := readable(t, encode(t, c.paper()))
			path := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			for _, word := range c.has {
				if !strings.Contains(got, word) {
					t.Errorf("%q is missing in\n%s", word, got)
				}
			}
			for _, word := range c.lack {
				if strings.Contains(got, word) {
					t.Errorf("%q must not stand in\n%s", word, got)
				}
			}
		})
	}
}

// styles are the commands that only switch how text looks (ESC a, ESC E, GS !); they move when a line goes.
var styles = regexp.MustCompile("\x1B[aE](?s:.)|\x1D!(?s:.)")

func TestACopyDiffersFromTheFirstOnlyByItsMark(t *testing.T) {
	for name, papers := range map[string][2]printer.Document{
		"sale":   {saleWith(func(*Sale) {}), saleWith(func(s *Sale) { s.Copy = 2 })},
		"refund": {refund(1), refund(2)},
	} {
		first := strings.Split(string(styles.ReplaceAll(encode(t, papers[0]), nil)), "\n")
		again := strings.Split(string(styles.ReplaceAll(encode(t, papers[1]), nil)), "\n")
		kept := slices.DeleteFunc(slices.Clone(again), func(line string) bool { return strings.Contains(line, "COPY") })
		if len(kept) != len(again)-1 || !slices.Equal(kept, first) {
			t.Errorf("%s: got %q, want %q and one mark", name, again, first)
		}
	}
}

func TestTheSamePaperTwiceIsTheSameBytes(t *testing.T) {
	for _, c := range cases {
		if !bytes.Equal(encode(t, c.paper()), encode(t, c.paper())) {
			t.Errorf("%s differs", c.name)
		}
	}
}

func TestACodeThatCannotBeDrawnIsAnError(t *testing.T) {
	broken := errors.New("no ink")
	if _, err := OfSale(sale(), func(string) (printer.Bits, error) { return printer.Bits{}, broken }); !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v", err, broken)
	}
}

func TestTheCodeIsTheTradesNumber(t *testing.T) {
	var drawn string
	_, err := OfSale(sale(), func(text string) (printer.Bits, error) { drawn = text; return dots(text) })
	if err != nil || drawn != sale().TradeNo {
		t.Errorf("drew %q (%v)", drawn, err)
	}
}
