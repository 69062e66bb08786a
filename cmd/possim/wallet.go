package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// refused is an answer that is no.
type refused struct{ code, zh, en string }

func (r refused) Error() string { return r.code + ": " + r.zh + " · " + r.en }

// customer is a customer of a running demo.
type customer struct {
	wallet string // where the control API has it
	kind   string // of code
	pin    string
	out    io.Writer
}

// walletCommand is a customer on the command line.
func walletCommand(stdout io.Writer) *cobra.Command {
	control := os.Getenv("POSSIM_CONTROL")
	if control == "" {
		control = "http://127.0.0.1:8601"
	}
	who := customer{out: stdout}
	c := &cobra.Command{
		Use: "wallet PHONE show|code|pay ORDER|confirm PIN", Short: "命令行上的顾客 · a customer of a running demo, on the command line",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("%w: %s", errUsage, c.UseLine())
			}
			who.wallet = strings.TrimSuffix(control, "/") + "/_sim/wallets/" + url.PathEscape(args[0])
			return who.do(c.Context(), args[1], args[2:])
		},
	}
	c.Flags().StringVar(&control, "control", control, "the demo's control address; POSSIM_CONTROL")
	c.Flags().StringVar(&who.kind, "kind", "ONLINE", "of code: ONLINE or SIGNED")
	c.Flags().StringVar(&who.pin, "pin", "", "of pay: the payment PIN, where the wallet asks for it")
	return c
}

// do carries out one verb.
func (c customer) do(ctx context.Context, verb string, args []string) error {
	var body map[string]any
	switch {
	case verb == "show" && len(args) == 0:
		return c.show(ctx, "", nil)
	case verb == "code" && len(args) == 0:
		answer, err := askControl(ctx, c.wallet+"/code", map[string]any{"kind": c.kind})
		if err == nil {
			fmt.Fprintln(c.out, answer["text"])
		}
		return err
	case verb == "pay" && len(args) == 1:
		body = map[string]any{"order_text": args[0]}
		if c.pin != "" {
			body["pin"] = c.pin
		}
	case verb == "confirm" && len(args) == 1:
		body = map[string]any{"pin": args[0]}
	default:
		return fmt.Errorf("%w: wallet PHONE show|code|pay ORDER|confirm PIN", errUsage)
	}
	return c.show(ctx, "/"+verb, body)
}

func (c customer) show(ctx context.Context, path string, body map[string]any) error {
	answer, err := askControl(ctx, c.wallet+path, body)
	if err == nil {
		printJSON(c.out, answer)
	}
	return err
}

// askControl asks the control API: GET without a body, POST with one.
func askControl(ctx context.Context, address string, body map[string]any) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	method, in := http.MethodGet, io.Reader(nil)
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask demo: %w", err)
		}
		method, in = http.MethodPost, bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, address, in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask demo: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask demo: %w", err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("ask demo: status %d, and no JSON", resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		word := func(key string) string { s, _ := answer[key].(string); return s }
		return nil, refused{word("code"), word("detail"), word("detail_en")}
	}
	return answer, nil
}
