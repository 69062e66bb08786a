package wire

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzQuick: whatever the bytes, the quick way of reading a frame says what the slow one says.
func FuzzQuick(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden frames", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimSpace(raw))
	}
	for _, text := range []string{
		`{"type":"query","id":7,"body":{}}{}`, `{"type":"query","id":7,"body":{},"body":{"trade_no":"X"}}`, `{"type":"query","id":07,"body":{}}`,
		`{"type":"query","id":7,"body":{},"type":"pay"}`, `{"type":"query","re":1,"id":7,"body":{}}`, `{"type":"query","id":18446744073709551616,"body":{}}`,
		`{"type":"query","id":7,"body":{} }`, `{"type":"query","id":7,"body":{}`, `{"type":"query","id":-1,"body":{}}`, `{"type":"query","id":1e3,"body":{}}`,
		`{"type":"ack","id":1,"body":{"news":1}}}`, `{"type":"","body":{}}`, `{"type":"query","body":{"a":"}"}}`, "{\"type\":\"query\",\"body\":{}}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > MaxFrame {
			return
		}
		got, gotBody, gotErr := Decode(data)
		want, wantBody, wantErr := decode(data)
		if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
			t.Fatalf("%q: %v, want %v", data, gotErr, wantErr)
		}
		if got.Type != want.Type || got.ID != want.ID || got.Re != want.Re || !reflect.DeepEqual(gotBody, wantBody) {
			t.Fatalf("%q: %+v %+v, want %+v %+v", data, got, gotBody, want, wantBody)
		}
	})
}
