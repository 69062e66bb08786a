package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"yupos/daemon/auth"
	"yupos/devices/paycode"
)

const (
	codesPath = "/v1/codes/read"
	maxFrame  = 4 << 20 // bytes of a camera frame, as it is compressed; paycode.FrameLimits bounds its pixels
	frameRoom = 16 << 10
	// decodeAfter is how long a frame waits for the one before it: one core is the till's.
	decodeAfter = 500 * time.Millisecond
)

// CodeRead is what a picture says. It is only read: nothing is charged.
type CodeRead struct {
	Text      string `json:"text" doc:"as it stands in the code; give it back as auth_code or receipt_code"`
	Symbology string `json:"symbology" enum:"QR,CODE_128"`
	Kind      string `json:"kind" enum:"ONLINE,SIGNED,ORDER,RECEIPT,WECHAT,ALIPAY,UNIONPAY,ECNY,GOODS_BARCODE,OTHER_EMVCO,UNKNOWN_CODE,MALFORMED"`
	Name      string `json:"name" doc:"what it is, for people, Chinese"`
	NameEN    string `json:"name_en" doc:"what it is, for people, English"`
}

type codeReadInput struct {
	ContentType string `header:"Content-Type"`
	RawBody     []byte `contentType:"application/octet-stream" doc:"PNG, JPEG, GIF or BMP, at most 4 MiB and 1920 by 1088 pixels; or multipart/form-data with one file"`
}

type codeReadOutput struct{ Body CodeRead }

func (s *Server) addCodes() {
	op := huma.Operation{
		OperationID: "read-code", Method: http.MethodPost, Path: codesPath, Summary: "从图片读码 · read a QR code or Code 128 from a camera frame",
		Tags: []string{string(auth.Pay)}, Metadata: map[string]any{scopeKey: auth.Pay}, MaxBodyBytes: maxFrame + frameRoom, BodyReadTimeout: -1,
		Description: "Scope: " + string(auth.Pay) + ". Reads only, within 0.3 s; 422 NOTHING_READ where there is no code: send the next frame.",
	}
	huma.Register(s.api, op, func(ctx context.Context, in *codeReadInput) (*codeReadOutput, error) {
		out, err := s.readCode(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &codeReadOutput{out}, nil
	})
}

// readCode decodes one frame at a time, so that a camera held to a wall leaves the till its time.
func (s *Server) readCode(ctx context.Context, in *codeReadInput) (CodeRead, error) {
	frame, err := frameOf(in.ContentType, in.RawBody)
	if err != nil {
		return CodeRead{}, err
	}
	wait := time.NewTimer(decodeAfter)
	defer wait.Stop()
	select {
	case s.decoding <- struct{}{}:
		defer func() { <-s.decoding }()
	case <-wait.C:
		return CodeRead{}, context.DeadlineExceeded
	case <-ctx.Done():
		return CodeRead{}, ctx.Err()
	}
	text, symbology, err := paycode.ReadFile(frame, paycode.FrameLimits)
	if err != nil {
		return CodeRead{}, err
	}
	kind, zh, en := paycode.Describe(text, symbology)
	return CodeRead{Text: text, Symbology: symbology, Kind: string(kind), Name: zh, NameEN: en}, nil
}

// frameOf is the picture of a request: its body, or the first file of a form.
func frameOf(contentType string, body []byte) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" {
		return body, nil // what it really is, its first bytes say
	}
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		part, err := form.NextPart()
		if err != nil {
			return nil, fmt.Errorf("%w: a form without a file", paycode.ErrPicture)
		}
		if part.FileName() != "" {
			return io.ReadAll(part) // the whole form is bounded already
		}
	}
}
