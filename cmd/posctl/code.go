package main

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"yupos/devices/paycode"
)

// maxCodeText bounds what standard input may hold, in bytes. No code is longer.
const maxCodeText = 64 << 10

func (t *tool) code() *cobra.Command {
	c := &cobra.Command{Use: "code", Short: "付款码工具 · what a code is", Args: exactly(0, "inspect|read"), RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(t.inspect(), t.read())
	return c
}

// text is a code given by hand, or standard input for "-". One line end after it does not belong to it.
func (t *tool) text(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	raw, err := io.ReadAll(io.LimitReader(t.in, maxCodeText+1))
	if err != nil {
		return "", err
	}
	if len(raw) > maxCodeText {
		return "", usage("标准输入过长 · standard input holds more than %d bytes", maxCodeText)
	}
	if text, ended := strings.CutSuffix(string(raw), "\n"); ended {
		return strings.TrimSuffix(text, "\r"), nil
	}
	return string(raw), nil
}

func (t *tool) inspect() *cobra.Command {
	var now int64
	var issuer, ledger, terminal []string
	c := &cobra.Command{
		Use: "inspect [flags] -- CODE", Short: "这是什么码 · what is this code? (- reads standard input)", Args: exactly(1, "[flags] -- CODE"),
	}
	c.Flags().Int64Var(&now, "now", 0, "判断时刻，Unix 秒 · the time to judge at (default: now)")
	c.Flags().StringArrayVar(&issuer, "issuer-key", nil, "签发方公钥 HEX · an issuer's public key")
	c.Flags().StringArrayVar(&ledger, "ledger-key", nil, "账本公钥 HEX · a ledger's public key")
	c.Flags().StringArrayVar(&terminal, "terminal-key", nil, "终端公钥 HEX · a terminal's public key")
	c.RunE = func(c *cobra.Command, args []string) error {
		keys, err := inspectKeys(issuer, ledger, terminal)
		if err != nil {
			return err
		}
		text, err := t.text(args[0])
		if err != nil {
			return err
		}
		at := time.Now()
		if c.Flags().Changed("now") {
			at = time.Unix(now, 0)
		}
		in := paycode.Inspect(text, keys, at)
		e := json.NewEncoder(t.out)
		e.SetEscapeHTML(false)
		if err := e.Encode(in); err != nil {
			return err
		}
		if in.Verdict != paycode.VerdictOK {
			return exit{exitRefused, inspectWords(text, in)}
		}
		return nil
	}
	return c
}

// inspectWords says a refusal for a person; the object on standard output is for programs.
func inspectWords(text string, in paycode.Inspection) string {
	if in.Reason == paycode.ForeignCode {
		_, zh, en := paycode.Describe(text, "")
		return zh + " · " + en
	}
	zh, en := in.Reason.Words()
	return zh + " · " + en
}

func inspectKeys(issuer, ledger, terminal []string) (keys paycode.InspectKeys, err error) {
	for _, list := range []struct {
		flag  string
		texts []string
		keys  *[]ed25519.PublicKey
	}{{"issuer-key", issuer, &keys.Issuer}, {"ledger-key", ledger, &keys.Ledger}, {"terminal-key", terminal, &keys.Terminal}} {
		for _, s := range list.texts {
			k, err := paycode.ParseKey(s)
			if err != nil {
				return keys, usage("--%s: 需要 64 位十六进制公钥 · a public key is 64 hex digits", list.flag)
			}
			*list.keys = append(*list.keys, k)
		}
	}
	return keys, nil
}

// readResult is one picture as "posctl code read --json" answers it.
type readResult struct {
	File      string `json:"file"`
	Text      string `json:"text"`
	Symbology string `json:"symbology"`
}

var escapeLine = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)

func (t *tool) read() *cobra.Command {
	return &cobra.Command{
		Use: "read IMAGE…", Short: "从图片读码 · read QR and Code 128 from pictures",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("用法 · usage: posctl code read IMAGE…")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			results, failed := make([]readResult, 0, len(args)), false
			for _, file := range args {
				text, symbology, err := readFile(file)
				if err != nil {
					failed = true
					fmt.Fprintf(t.err, "posctl: %s: %v\n", file, err)
				}
				results = append(results, readResult{file, text, symbology})
				if !t.json {
					line := escapeLine.Replace(strings.ToValidUTF8(text, "\uFFFD"))
					if err != nil {
						line = "-"
					}
					if _, err := fmt.Fprintln(t.out, line); err != nil {
						return err
					}
				}
			}
			if t.json {
				e := json.NewEncoder(t.out)
				e.SetEscapeHTML(false)
				if err := e.Encode(results); err != nil {
					return err
				}
			}
			if failed {
				return exit{exitRefused, ""}
			}
			return nil
		},
	}
}

// readFile reads one picture within the limits of paycode.
func readFile(name string) (text, symbology string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(paycode.FileLimits.FileBytes)+1))
	if err != nil {
		return "", "", err
	}
	return paycode.ReadFile(raw, paycode.FileLimits)
}
