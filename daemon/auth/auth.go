// Package auth says who stands at the counter and what they may do.
//
// Guarantees: a caller is known by a bearer token that is compared in constant time, by its SHA-256; a token is read only
// from a file that nobody else may read; no token ever stands in an error, a log or a URL. Auth is safe for concurrent use.
package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Scope is one thing that a caller may do.
type Scope string

// The scopes. Refund, Shift, Office and Settings are a manager's.
const (
	Pay      Scope = "pay"
	Query    Scope = "query"
	Cancel   Scope = "cancel"
	Print    Scope = "print"
	Show     Scope = "show"
	Events   Scope = "events"
	Terminal Scope = "terminal"
	Refund   Scope = "refund"
	Shift    Scope = "shift"
	Office   Scope = "office"
	Settings Scope = "settings"
)

// Scopes are all that there are.
var Scopes = []Scope{Pay, Query, Cancel, Print, Show, Events, Terminal, Refund, Shift, Office, Settings}

// Errors of a caller.
var (
	// ErrNoToken says that the request bears no token.
	ErrNoToken = errors.New("auth: no bearer token")
	// ErrBadToken says that the token is nobody's.
	ErrBadToken = errors.New("auth: unknown token")
	// ErrScope says that the caller may not do this.
	ErrScope = errors.New("auth: not allowed")
	// ErrFile says that a token's file is missing, open to others, too short, or bears another caller's token.
	ErrFile = errors.New("auth: bad token file")
)

// minToken is the shortest token, in characters: 160 bits as base32, 128 as hex.
const minToken = 32

// Token is where a caller's token stands and what it may do.
type Token struct {
	Name   string
	File   string
	Scopes []string
}

// Caller is somebody who showed a valid token.
type Caller struct {
	Name   string
	scopes []Scope
}

// May reports whether the caller may do it.
func (c Caller) May(s Scope) bool { return slices.Contains(c.scopes, s) }

// Check is nil if the caller may do it, else ErrScope naming what is missing.
func (c Caller) Check(s Scope) error {
	if c.May(s) {
		return nil
	}
	return fmt.Errorf("%w: %s needs %q", ErrScope, c.Name, string(s))
}

type entry struct {
	sum    [32]byte
	caller Caller
}

// Auth knows the callers.
type Auth struct{ entries []entry }

// Load reads all token files. It fails with ErrFile.
func Load(tokens []Token) (*Auth, error) {
	a := &Auth{}
	for _, t := range tokens {
		info, err := os.Stat(t.File)
		if err != nil {
			return nil, fmt.Errorf("%w: token %q: %w", ErrFile, t.Name, err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("%w: %s has mode %04o; 请执行 · run: chmod 600 %s", ErrFile, t.File, info.Mode().Perm(), t.File)
		}
		raw, err := os.ReadFile(t.File)
		if err != nil {
			return nil, fmt.Errorf("%w: token %q: %w", ErrFile, t.Name, err)
		}
		text := strings.TrimSpace(string(raw))
		if len(text) < minToken {
			return nil, fmt.Errorf("%w: token %q is shorter than %d characters", ErrFile, t.Name, minToken)
		}
		sum := sha256.Sum256([]byte(text))
		if i := slices.IndexFunc(a.entries, func(e entry) bool { return e.sum == sum }); i >= 0 {
			return nil, fmt.Errorf("%w: %q and %q have the same token", ErrFile, a.entries[i].caller.Name, t.Name)
		}
		c := Caller{Name: t.Name}
		for _, s := range t.Scopes {
			c.scopes = append(c.scopes, Scope(s))
		}
		a.entries = append(a.entries, entry{sum, c})
	}
	return a, nil
}

// Bearer knows the caller by an Authorization header, or fails with ErrNoToken or ErrBadToken. It takes the same time
// whichever token is shown.
func (a *Auth) Bearer(header string) (Caller, error) {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Caller{}, ErrNoToken
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	found, err := Caller{}, ErrBadToken
	for _, e := range a.entries {
		if subtle.ConstantTimeCompare(sum[:], e.sum[:]) == 1 {
			found, err = e.caller, nil
		}
	}
	return found, err
}

// Named is the caller with this name, for a session of the pages; ok is false if there is none.
func (a *Auth) Named(name string) (c Caller, ok bool) {
	for _, e := range a.entries {
		if e.caller.Name == name {
			return e.caller, true
		}
	}
	return c, false
}
