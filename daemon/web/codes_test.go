package web

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"yupos/devices/paycode"
	"yupos/ledgercache"
)

// upload sends a body as it is.
func (c *counter) upload(contentType, token string, body []byte) reply {
	c.t.Helper()
	req, err := http.NewRequest("POST", c.http.URL+codesPath, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return c.do(req)
}

func drawn(t *testing.T, text string) image.Image {
	t.Helper()
	p, err := paycode.Draw(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.PNG(6)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestACameraFrameIsReadAndNamed(t *testing.T) {
	c := newCounter(t)
	code := online(t, "861234567890123")
	img := drawn(t, code)
	var asPNG, asJPEG, asGIF, form bytes.Buffer
	for _, err := range []error{png.Encode(&asPNG, img), jpeg.Encode(&asJPEG, img, nil), gif.Encode(&asGIF, img, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := multipart.NewWriter(&form)
	if part, err := w.CreateFormFile("image", "frame.jpg"); err != nil {
		t.Fatal(err)
	} else if _, err := part.Write(asJPEG.Bytes()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, f := range map[string]struct {
		kind string
		body []byte
	}{
		"png": {"image/png", asPNG.Bytes()}, "jpeg": {"image/jpeg", asJPEG.Bytes()}, "gif": {"image/gif", asGIF.Bytes()},
		"no kind": {"application/octet-stream", asPNG.Bytes()}, "form": {w.FormDataContentType(), form.Bytes()},
	} {
		r := c.upload(f.kind, registerToken, f.body)
		if r.status != 200 || r.body["text"] != code || r.body["kind"] != "ONLINE" || r.body["symbology"] != "QR" || r.body["name"] == "" {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
	if list, _, err := c.book.Trades(ledgercache.Query{}); err != nil || len(list) != 0 {
		t.Errorf("reading a code left %d trades, %v", len(list), err)
	}
	if strings.Contains(c.log.String(), code) {
		t.Error("the code stands in the log")
	}
}

func TestAFrameOfAForeignCodeIsCalledByItsName(t *testing.T) {
	c := newCounter(t)
	for text, want := range map[string][2]string{
		"134567890123456789": {"WECHAT", "这是微信付款码"}, "281234567890123456": {"ALIPAY", "这是支付宝付款码"}, "0112345678901234567": {"ECNY", "这是数字人民币付款码"},
		"6901234567892": {"GOODS_BARCODE", "这是商品条码，不是付款码"}, "https://example.com/pay": {"UNKNOWN_CODE", "这是网址，不是付款码"},
		"hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MQ==": {"OTHER_EMVCO", "这是 Product1 的付款码"},
	} {
		var frame bytes.Buffer
		if err := png.Encode(&frame, drawn(t, text)); err != nil {
			t.Fatal(err)
		}
		if r := c.upload("image/png", registerToken, frame.Bytes()); r.status != 200 || r.body["text"] != text || r.body["kind"] != want[0] || r.body["name"] != want[1] {
			t.Errorf("%s: %d %s", text, r.status, r.raw)
		}
	}
}

func TestWhatIsNoReadableFrameIsRefusedInWords(t *testing.T) {
	c := newCounter(t)
	grey := image.NewGray(image.Rect(0, 0, 640, 480))
	large := image.NewGray(image.Rect(0, 0, 4000, 4000))
	large.Set(1, 1, color.White)
	var empty, huge bytes.Buffer
	if err := png.Encode(&empty, grey); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&huge, large); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct {
		kind, token string
		body        []byte
		status      int
		code        string
	}{
		"no code in it":      {"image/png", registerToken, empty.Bytes(), 422, "NOTHING_READ"},
		"no picture":         {"image/png", registerToken, []byte("hello"), 400, "BAD_PICTURE"},
		"nothing":            {"image/png", registerToken, nil, 400, "BAD_REQUEST"},
		"cut short":          {"image/png", registerToken, empty.Bytes()[:100], 400, "BAD_PICTURE"},
		"too many pixels":    {"image/png", registerToken, huge.Bytes(), 400, "BAD_PICTURE"},
		"form without files": {"multipart/form-data; boundary=x", registerToken, []byte("--x--"), 400, "BAD_PICTURE"},
		"too long":           {"image/png", registerToken, make([]byte, maxFrame+frameRoom+1), 413, "BODY_TOO_LARGE"},
		"no token":           {"image/png", "", empty.Bytes(), 401, "UNAUTHORIZED"},
		"bad token":          {"image/png", "nonsense", make([]byte, maxFrame), 401, "UNAUTHORIZED"},
	} {
		r := c.upload(f.kind, f.token, f.body)
		if r.status != f.status || r.body["code"] != f.code || r.body["detail"] == "" {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
}

func TestPicturesThatComeTogetherAreReadOneAtATime(t *testing.T) {
	c := newCounter(t)
	var frame bytes.Buffer
	if err := png.Encode(&frame, drawn(t, online(t, "861234567890123"))); err != nil {
		t.Fatal(err)
	}
	c.web.decoding <- struct{}{} // one is being read
	if r := c.upload("image/png", registerToken, frame.Bytes()); r.status != 503 || r.body["code"] != "BUSY" || r.body["retryable"] != true {
		t.Errorf("%d %s", r.status, r.raw)
	}
	<-c.web.decoding
	if r := c.upload("image/png", registerToken, frame.Bytes()); r.status != 200 {
		t.Errorf("%d %s", r.status, r.raw)
	}
}
