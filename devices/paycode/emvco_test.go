package paycode

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

const officialMerchant = "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN5914BEST TRANSPORT6007BEIJING64200002ZH0104最佳运输0202北京540523.7253031565502016233030412340603***0708A60086670902ME91320016A0112233449988770708123456786304A13A"

// summed writes the checksum behind a text.
func summed(text string) string { return fmt.Sprintf("%s6304%04X", text, crc16([]byte(text+"6304"))) }

func TestTheChecksumIsCRC16CCITTFalse(t *testing.T) {
	if got := crc16([]byte("123456789")); got != 0x29B1 {
		t.Errorf("got %04X", got)
	}
}

func TestMerchantCodesAreReadAsTheyAre(t *testing.T) {
	m, err := ParseMerchant(officialMerchant)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range m.Fields {
		ids = append(ids, f.ID)
		if !strings.HasPrefix(officialMerchant[f.At:], f.ID) {
			t.Errorf("field %s is not at %d", f.ID, f.At)
		}
	}
	if got := strings.Join(ids, " "); got != "00 01 29 31 52 58 59 60 64 54 53 55 62 91 63" {
		t.Errorf("fields %s", got)
	}
	if account, _ := fieldValue(m.Template("29")[0], "05"); account != "A93FO3230Q" {
		t.Errorf("account %q", account)
	}
	if v, ok := m.Value("99"); ok || v != "" {
		t.Errorf("a field that is not there: %q", v)
	}
	if got := m.Template("52"); got != nil {
		t.Errorf("a value is no template: %v", got)
	}
}

func TestTwoTemplatesOfOneKindAreBothKept(t *testing.T) {
	text := summed("000201010212" + "26120004ABCD0100" + "26120004EFGH0100" + "80080004WXYZ" + "80080004QRST")
	m, err := ParseMerchant(text)
	if err != nil || len(m.Template("26")) != 2 || len(m.Template("80")) != 2 {
		t.Fatalf("%v: %v", m, err)
	}
}

func TestAMerchantCodeInGBKIsReadByCharacters(t *testing.T) {
	gbk := must[string](t)(simplifiedchinese.GBK.NewEncoder().String(strings.TrimSuffix(officialMerchant, "6304A13A")))
	text := summed(gbk)
	if !strings.HasSuffix(text, "6304B333") {
		t.Fatalf("checksum %s", text[len(text)-4:])
	}
	m, err := ParseMerchant(text)
	if err != nil {
		t.Fatal(err)
	}
	if name, _ := fieldValue(m.Template("64")[0], "01"); name != "最佳运输" {
		t.Errorf("name %q", name)
	}
	// A code seen in the wild: right checksum, but its language template holds 24 bytes or 19 characters and says 20.
	damaged := strings.Replace(officialMerchant, "0202北京", "0202北", 1)
	gbk = must[string](t)(simplifiedchinese.GBK.NewEncoder().String(strings.TrimSuffix(damaged, "6304A13A")))
	if _, err := ParseMerchant(summed(gbk)); !errors.Is(err, ErrEMVCo) || utf8.ValidString(gbk) {
		t.Errorf("the damaged one: %v", err)
	}
	if _, err := ParseMerchant(summed(strings.TrimSuffix(damaged, "6304A13A"))); !errors.Is(err, ErrEMVCo) {
		t.Errorf("the damaged one in UTF-8: %v", err)
	}
}

func TestDamagedMerchantCodesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "short": "0002", "checksum wrong": officialMerchant[:len(officialMerchant)-1] + "B",
		"version 02": summed("000202010212"), "version not first": summed("010212000201"), "checksum not last": summed("000201") + "5802CN",
		"no checksum": "000201010212", "length beyond the text": summed("00020101120")[:15], "letters for a length": summed("0002010A02xx"),
		"template that does not divide": summed("0002012605ABCDE"), "template cut": summed("0002012606000512"),
		"neither UTF-8 nor GBK": summed("000201590300\xff"), "too long": summed("000201" + strings.Repeat("5800", 2000)),
		"too many fields": summed("000201" + strings.Repeat("5800", 300)),
	} {
		if _, err := ParseMerchant(text); !errors.Is(err, ErrEMVCo) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func encoded(parts ...string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x85\x05CPV01" + strings.Join(parts, "")))
}

func TestConsumerCodesAreReadAsTheyAre(t *testing.T) {
	unionPay := "hQVDUFYwMWFYTwigAAADMwEBAVcTYpJhA1hEQzVkHSIQIBAAABiAH180AQBjM58mCFaLEtnaC9l/nycBgJ8QEQcAAQOgAAABCDM5OTk5OTk5nzYCAAGCAgAAnzcE6gZYyA=="
	c, err := ParseConsumer(unionPay)
	if err != nil {
		t.Fatal(err)
	}
	inner := c.Objects[1].Children[3]
	var tags []string
	for _, o := range inner.Children {
		tags = append(tags, fmt.Sprintf("%X", o.Tag))
	}
	if got := strings.Join(tags, " "); inner.Tag != 0x63 || got != "9F26 9F27 9F10 9F36 82 9F37" {
		t.Errorf("template %X: %s", inner.Tag, got)
	}
	two, err := ParseConsumer("hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MWETTwegAAAAZmZmUAhQcm9kdWN0MmJJWggSNFZ4kBI0WF8gDkNBUkRIT0xERVIvRU1WXy0IcnVlc2RlZW5kIZ8QBwYBCgMAAACfJghYT9OF+iNLzJ82AgABnzcEbVjvEw==")
	if err != nil {
		t.Fatal(err)
	}
	if apps := two.Applications(); len(apps) != 2 || apps[1].Label != "Product2" || fmt.Sprintf("%X", apps[0].AID) != "A0000000555555" {
		t.Errorf("applications %+v", apps)
	}
	for name, text := range map[string]string{
		"padding missing": strings.TrimRight(unionPay, "="), "the other alphabet": strings.NewReplacer("+", "-", "/", "_").Replace(unionPay),
		"long form of a short length": encoded("\x61\x82\x00\x03\x4F\x01\xA0"), "length in four bytes": encoded("\x61\x84\x00\x00\x00\x03\x4F\x01\xA0"),
		"value of 200": encoded("\x61\x81\xCB\x50\x81\xC8", strings.Repeat("x", 200)), "tag of three bytes": encoded("\x9F\x81\x01\x01x"),
		"unknown tags kept": encoded("\xC9\x02ab"), "nothing but the format": encoded(),
	} {
		if _, err := ParseConsumer(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedConsumerCodesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "not base64": "hQVD*", "another version": base64.StdEncoding.EncodeToString([]byte("\x85\x05CPV02")),
		"value cut": encoded("\x61\x05\x4F"), "length cut": encoded("\x61\x82\x01"), "indefinite length": encoded("\x61\x80\x00\x00"),
		"length of five bytes": encoded("\x61\x85\x00\x00\x00\x00\x01x"), "length near 2^32": encoded("\x50\x84\xFF\xFF\xFF\xFFx"),
		"tag cut": encoded("\x9F"), "tag of four bytes": encoded("\x9F\x81\x81\x01\x00"), "tag alone": encoded("\x50"),
		"nested six deep": encoded("\x61\x0A\x62\x08\x63\x06\x64\x04\x65\x02\x66\x00"), "too many": encoded(strings.Repeat("\x50\x00", 300)),
		"too long": strings.Repeat("A", 5000),
	} {
		if _, err := ParseConsumer(text); !errors.Is(err, ErrEMVCo) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALabelCannotSpoilAScreen(t *testing.T) {
	c, err := ParseConsumer(encoded("\x61\x1A\x50\x18\x1b[2J", strings.Repeat("渝", 2), "Pay", strings.Repeat("y", 11)))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Applications()[0].Label; got != "[2JPay"+strings.Repeat("y", 10) {
		t.Errorf("label %q", got)
	}
}

// TestPublishedMerchantCodesAreReadAndTheDamagedOneIsRefused holds the codes that the field publishes: the official sample in
// its two orders, and one whose checksum is right although no counting of its bytes or characters makes its templates fit.
func TestPublishedMerchantCodesAreReadAndTheDamagedOneIsRefused(t *testing.T) {
	const reordered = "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115303156540523.725502015802CN5914BEST TRANSPORT" +
		"6007BEIJING6233030412340603***0708A60086670902ME64200002ZH0104最佳运输0202北京8036003239401ff0c21a4543a8ed5fbaa30ab02e81360032c2fbf6dd646f4f36b617f10747c0b96163046F32"
	m, err := ParseMerchant(reordered)
	if err != nil {
		t.Fatal(err)
	}
	ids := ""
	for _, f := range m.Fields {
		ids += f.ID + " "
	}
	if ids != "00 01 29 31 52 53 54 55 58 59 60 62 64 80 81 63 " {
		t.Errorf("fields %s", ids)
	}
	for id, want := range map[string]string{"29": "A93FO3230Q", "31": "12345678"} {
		account := m.Template(id)[0]
		if got := account[1].Value; got != want {
			t.Errorf("account %s is %q", id, got)
		}
	}
	if own, _ := fieldValue(m.Template("80")[0], "00"); own != "39401ff0c21a4543a8ed5fbaa30ab02e" {
		t.Errorf("template 80 holds %q", own)
	}
	if city, _ := fieldValue(m.Template("64")[0], "02"); city != "北京" {
		t.Errorf("city %q", city)
	}
	const damaged = "00020101021126240012D156000000000520441115802CN5914BEST TRANSPORT6007BEIJING64200002ZH0104\xca\xd0\xcd\xa80206\xb1\xb1\xbe\xa9\xca\xd0540523.725303156630440C7"
	if sum := fmt.Sprintf("%04X", crc16([]byte(damaged[:len(damaged)-4]))); sum != "40C7" {
		t.Fatalf("its checksum is %s", sum)
	}
	if _, err := ParseMerchant(damaged); !errors.Is(err, ErrEMVCo) {
		t.Errorf("the damaged one: %v", err)
	}
	if got := Classify(damaged); got != KindOtherEMVCo {
		t.Errorf("the damaged one is %s", got)
	}
	// Its language template alone, in a code that is right elsewhere.
	if _, err := ParseMerchant(summed("0002015802CN64200002ZH0104\xca\xd0\xcd\xa80206\xb1\xb1\xbe\xa9\xca\xd0")); !errors.Is(err, ErrEMVCo) {
		t.Errorf("its template: %v", err)
	}
}

func TestLengthsCountCharactersWhateverTheirBytes(t *testing.T) {
	for name, value := range map[string]string{
		"Chinese": "重庆渝中小面", "beyond the first plane": "𠮷野家🍜", "combining": "é", "99 of them": strings.Repeat("渝", 99), "mixed": "A渝B中", "half-width kana": "ﾃﾞｻﾞ",
	} {
		text := summed("000201" + fmt.Sprintf("59%02d%s", utf8.RuneCountInString(value), value) + fmt.Sprintf("64%02d0002ZH01%02d%s",
			min(99, 10+min(89, utf8.RuneCountInString(value))), min(89, utf8.RuneCountInString(value)), string([]rune(value)[:min(89, utf8.RuneCountInString(value))])))
		m, err := ParseMerchant(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _ := m.Value("59"); got != value {
			t.Errorf("%s: %q", name, got)
		}
		if bytesNotCharacters := summed("000201" + fmt.Sprintf("59%02d%s", min(99, len(value)), value)); len(value) < 99 {
			if _, err := ParseMerchant(bytesNotCharacters); !errors.Is(err, ErrEMVCo) {
				t.Errorf("%s: a length in bytes is taken: %v", name, err)
			}
		}
	}
}

func TestABERLengthIsAByteAndNeverTwoDecimalDigits(t *testing.T) {
	// 0x10 is sixteen; a reader that prints it and reads it as ten leaves six bytes over.
	c, err := ParseConsumer(encoded("\x61\x12\x50\x10", "sixteen letters!", "\x50\x03end"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Applications()[0].Label; got != "sixteen letters!" || len(c.Objects) != 3 {
		t.Errorf("%q, %d objects", got, len(c.Objects))
	}
	for name, long := range map[string]string{
		"one byte more": "\x50\x81\x80", "two": "\x50\x82\x00\x80", "three": "\x50\x83\x00\x00\x80", "four": "\x50\x84\x00\x00\x00\x80",
	} {
		c, err := ParseConsumer(encoded(long, strings.Repeat("x", 128)))
		if err != nil || len(c.Objects) != 2 || len(c.Objects[1].Value) != 128 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
