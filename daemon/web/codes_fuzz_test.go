package web

import (
	"bytes"
	"testing"
)

// FuzzFrameOf takes any request's body and content type: what is no form is the body itself, and a form gives no more bytes than
// it has.
func FuzzFrameOf(f *testing.F) {
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		frame, err := frameOf(contentType, body)
		if err == nil && len(frame) > len(body) || err != nil && frame != nil && len(frame) > len(body) {
			t.Errorf("%d bytes of %d, %v", len(frame), len(body), err)
		}
		if contentType == "image/png" && !bytes.Equal(frame, body) {
			t.Error("another body")
		}
	})
}
