package simulators

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const maxBody = 64 << 10

// refusal is an answer that is no.
type refusal struct {
	status     int
	code       string
	zh, detail string
}

func (r refusal) Error() string { return r.detail }

func badRequest(zh, en string) refusal {
	return refusal{http.StatusBadRequest, "MALFORMED_REQUEST", zh, en}
}

// answer makes a handler of what returns the new state or why not.
func answer(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		state, err := do(r)
		if err != nil {
			problem(rw, err)
			return
		}
		write(rw, http.StatusOK, "application/json", state)
	})
}

// problem answers an error (RFC 9457).
func problem(rw http.ResponseWriter, err error) {
	r := asRefusal(err)
	write(rw, r.status, "application/problem+json", map[string]any{
		"type": "about:blank", "title": http.StatusText(r.status), "status": r.status, "code": r.code,
		"detail": r.zh, "detail_en": r.detail, "retryable": r.status >= 500, "trace_id": rand.Text()[:16],
	})
}

func write(rw http.ResponseWriter, status int, kind string, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{}`) // nothing here fails to encode
	}
	rw.Header().Set("Content-Type", kind)
	rw.WriteHeader(status)
	rw.Write(append(raw, '\n'))
}

// decode reads a body that is one JSON object with known fields and nothing behind it.
func decode(r *http.Request, into any) error {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return badRequest("请求没有收完", "the body did not arrive whole")
	}
	if len(raw) > maxBody {
		return refusal{http.StatusRequestEntityTooLarge, "TOO_LARGE", "请求太大", "the body is larger than 64 KiB"}
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return badRequest("请求必须是一个 JSON 对象", "the body must be one JSON object")
	}
	known := fields(into)
	for name := range object {
		if !known[name] {
			return badRequest(fmt.Sprintf("不认识的字段 %q", name), fmt.Sprintf("unknown field %q", name))
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return badRequest(fmt.Sprintf("字段 %s 的类型不对", kind.Field), fmt.Sprintf("field %s has the wrong type", kind.Field))
		}
		return badRequest("请求不是有效的 JSON", "the body is no valid JSON")
	}
	return nil
}

// fields are the names under which a struct of pointers and plain values encodes.
func fields(of any) map[string]bool {
	raw, err := json.Marshal(of)
	if err != nil {
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil
	}
	known := map[string]bool{}
	for name := range object {
		known[name] = true
	}
	return known
}
