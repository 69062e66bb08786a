package ledgercache

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/journal"
)

// This file carries a whole book: a bundle is a tar of the journal's files as they are, sealed batches and all, with a
// manifest that names each of them and is authenticated with the book key. Nothing in it is readable without that key,
// and without it no bundle can be made or changed. BUNDLE.md specifies it.

// Errors of bundles.
var (
	// ErrBundle says that a bundle is damaged, incomplete or not one.
	ErrBundle = errors.New("ledgercache: bad bundle")
	// ErrBundleForeign says that a bundle is of another terminal.
	ErrBundleForeign = errors.New("ledgercache: bundle of another terminal")
	// ErrBundleKey says that a bundle is not of this book key.
	ErrBundleKey = errors.New("ledgercache: bundle of another key")
	// ErrBookExists says that there is a book already: nothing is written over it.
	ErrBookExists = errors.New("ledgercache: there is a book already")
)

const (
	bundleFormat = "yupos-bundle-v1"
	manifestName = "manifest.json"
	secretPrefix = "secret/"
	maxManifest  = 8 << 20
	maxSecret    = 4 << 10
)

var journalFile = regexp.MustCompile(`^journal/([0-9]{10}\.seg|HEAD|KEYRING(\.next)?)$`)

// Manifest says what a bundle holds.
type Manifest struct {
	Format     string       `json:"format"`
	TerminalID string       `json:"terminal_id"`
	Software   string       `json:"software,omitempty"`
	MadeAt     time.Time    `json:"made_at"`
	Epoch      string       `json:"epoch"`
	Sequence   uint64       `json:"sequence"`
	Head       string       `json:"head"` // hex
	Files      []BundleFile `json:"files"`
	MAC        string       `json:"mac"` // HMAC-SHA-256 of the manifest with an empty mac, hex
}

// BundleFile is one file of a bundle.
type BundleFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// sign is the manifest's code under the book key.
func (m Manifest) sign(bookKey [32]byte) (string, error) {
	m.MAC = ""
	raw, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	k, err := hkdf.Key(sha256.New, bookKey[:], nil, bundleFormat, 32)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, k)
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// WriteBundle writes the book in o.Dir, also while a daemon runs on it, to w. The journal is copied under work (a directory
// that has room for it), proved there, and only then written. secrets are put in first; they are readable by whoever
// reads w: only an export, which is sealed as a whole, has any.
func WriteBundle(ctx context.Context, o Options, work string, w io.Writer, secrets map[string][]byte, tell Progress) (m Manifest, err error) {
	if tell == nil {
		tell = func(string, uint64, uint64) {}
	}
	if !Exists(o.Dir) {
		return m, fmt.Errorf("%w: no book in %s", ErrNotFound, o.Dir)
	}
	dir, err := os.MkdirTemp(work, ".yupos-bundle-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	copied := filepath.Join(dir, "journal")
	if err := copyJournal(ctx, filepath.Join(o.Dir, "journal"), copied, tell); err != nil {
		return m, err
	}
	if m, err = describe(o, dir, tell); err != nil {
		return m, err
	}
	return m, writeTar(ctx, dir, m, w, secrets, tell)
}

// describe proves the copy and names its files.
func describe(o Options, dir string, tell Progress) (Manifest, error) {
	tell("journal", 0, 0)
	j, report, err := journal.Open(journal.Options{Dir: filepath.Join(dir, "journal"), Key: o.Key, TerminalID: o.TerminalID, ReadOnly: true})
	if err != nil {
		return Manifest{}, err
	}
	defer j.Close()
	if report.Problem != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, report.Problem)
	}
	h := j.Head()
	m := Manifest{
		Format: bundleFormat, TerminalID: o.TerminalID, Software: o.Software, MadeAt: time.Now().UTC().Truncate(time.Second),
		Epoch: ulid.ULID(h.Epoch).String(), Sequence: h.Sequence, Head: hex.EncodeToString(h.Hash[:]),
	}
	entries, err := os.ReadDir(filepath.Join(dir, "journal"))
	if err != nil {
		return m, err
	}
	for _, e := range entries {
		name := "journal/" + e.Name()
		if !journalFile.MatchString(name) {
			continue // the lock of the proof
		}
		sum, size, err := hashOf(filepath.Join(dir, name))
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, BundleFile{Name: name, Size: size, SHA256: sum})
	}
	m.MAC, err = m.sign(o.Key)
	return m, err
}

func hashOf(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

func writeTar(ctx context.Context, dir string, m Manifest, w io.Writer, secrets map[string][]byte, tell Progress) error {
	t := tar.NewWriter(w)
	put := func(name string, body []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := t.Write(body)
		return err
	}
	for name, body := range secrets {
		if err := put(secretPrefix+name, body); err != nil {
			return err
		}
	}
	raw, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := put(manifestName, raw); err != nil {
		return err
	}
	for i, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		tell("bundle", uint64(i), uint64(len(m.Files)))
		if err := addFile(t, dir, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func addFile(t *tar.Writer, dir string, f BundleFile) error {
	in, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return err
	}
	defer in.Close()
	if err := t.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o600, Size: f.Size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.CopyN(t, in, f.Size)
	return err
}

// Bundle is a bundle that was taken out into a directory and proved; nothing of it is believed before.
type Bundle struct {
	Manifest Manifest
	Secrets  map[string][]byte
	dir      string
}

// Close removes what was taken out and not kept.
func (b *Bundle) Close() error { return os.RemoveAll(b.dir) }

// Options are o for the book that was taken out: to prove it where it lies.
func (b *Bundle) Options(o Options) Options {
	o.Dir, o.Mirror = b.dir, ""
	return o
}

// ReadBundle takes a bundle out under work and checks every name, size and hash, and the manifest under the key that key
// answers when the secrets are known. It fails with ErrBundle, ErrBundleKey or ErrBundleForeign, leaving nothing.
func ReadBundle(ctx context.Context, o Options, work string, r io.Reader, key func(secrets map[string][]byte) ([32]byte, error), tell Progress) (b *Bundle, err error) {
	if tell == nil {
		tell = func(string, uint64, uint64) {}
	}
	dir, err := os.MkdirTemp(work, ".yupos-bundle-")
	if err != nil {
		return nil, err
	}
	b = &Bundle{Secrets: map[string][]byte{}, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
			b = nil
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, "journal"), 0o700); err != nil {
		return b, err
	}
	t := tar.NewReader(r)
	if err := b.readManifest(o, t, key); err != nil {
		return b, err
	}
	for i, f := range b.Manifest.Files {
		if err := ctx.Err(); err != nil {
			return b, err
		}
		tell("files", uint64(i), uint64(len(b.Manifest.Files)))
		if err := b.takeFile(t, f); err != nil {
			return b, err
		}
	}
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		return b, fmt.Errorf("%w: something follows", ErrBundle)
	}
	return b, syncDir(filepath.Join(dir, "journal"))
}

// readManifest reads the secrets, if there are any, and the manifest behind them.
func (b *Bundle) readManifest(o Options, t *tar.Reader, key func(map[string][]byte) ([32]byte, error)) error {
	for {
		h, err := t.Next()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBundle, err)
		}
		name, secret := strings.CutPrefix(h.Name, secretPrefix)
		switch {
		case secret && h.Size <= maxSecret && len(b.Secrets) < 8:
			if b.Secrets[name], err = io.ReadAll(t); err != nil {
				return fmt.Errorf("%w: %w", ErrBundle, err)
			}
		case h.Name == manifestName && h.Size <= maxManifest:
			return b.checkManifest(o, t, key)
		default:
			return fmt.Errorf("%w: %.40q is not a manifest", ErrBundle, h.Name)
		}
	}
}

func (b *Bundle) checkManifest(o Options, r io.Reader, key func(map[string][]byte) ([32]byte, error)) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBundle, err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	m := &b.Manifest
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrBundle, err)
	}
	if m.Format != bundleFormat {
		return fmt.Errorf("%w: format %.40q", ErrBundle, m.Format)
	}
	if m.TerminalID != o.TerminalID {
		return fmt.Errorf("%w: of %.16q, this is %s", ErrBundleForeign, m.TerminalID, o.TerminalID)
	}
	k, err := key(b.Secrets)
	if err != nil {
		return err
	}
	want, err := m.sign(k)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(want), []byte(m.MAC)) {
		return ErrBundleKey
	}
	names := map[string]bool{}
	for _, f := range m.Files {
		if !journalFile.MatchString(f.Name) || names[f.Name] || f.Size < 0 {
			return fmt.Errorf("%w: file %.40q", ErrBundle, f.Name)
		}
		names[f.Name] = true
	}
	return nil
}

func (b *Bundle) takeFile(t *tar.Reader, f BundleFile) error {
	h, err := t.Next()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBundle, f.Name, err)
	}
	if h.Name != f.Name || h.Size != f.Size || h.Typeflag != tar.TypeReg {
		return fmt.Errorf("%w: %.40q where %s should be", ErrBundle, h.Name, f.Name)
	}
	out, err := os.OpenFile(filepath.Join(b.dir, f.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), t)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %s is cut short", ErrBundle, f.Name)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil && hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		err = fmt.Errorf("%w: %s has other content", ErrBundle, f.Name)
	}
	return err
}

// Install makes the bundle's journal the book of o, which must not exist yet, neither in o.Dir nor in its mirror. The book
// begins a new epoch that names the old head: the ledger decides whether it is the newest there is. o.Key is the bundle's.
// Killed at any moment, there is either no book or the whole.
func (b *Bundle) Install(o Options) error {
	if err := mayInstall(o); err != nil {
		return err
	}
	from := filepath.Join(b.dir, "journal")
	j, report, err := journal.Open(journal.Options{Dir: from, Key: o.Key, TerminalID: o.TerminalID, Log: o.Log, BeginEpoch: true})
	if err != nil {
		return err
	}
	h := j.Head()
	if err := j.Close(); err != nil {
		return err
	}
	if report.Problem != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, report.Problem)
	}
	if h.Sequence != b.Manifest.Sequence || hex.EncodeToString(h.Hash[:]) != b.Manifest.Head {
		return fmt.Errorf("%w: the journal ends at sequence %d, the manifest says %d", ErrBundle, h.Sequence, b.Manifest.Sequence)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(o.Dir, "journal")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrBookExists, err) // an empty directory is no book, anything in it might be
	}
	if err := syncDir(b.dir); err != nil {
		return err
	}
	if err := os.Rename(from, filepath.Join(o.Dir, "journal")); err != nil {
		return err
	}
	return syncDir(o.Dir)
}

func mayInstall(o Options) error {
	places := []string{filepath.Join(o.Dir, "journal")}
	if o.Mirror != "" {
		places = append(places, o.Mirror)
	}
	for _, place := range places {
		entries, err := os.ReadDir(place)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return journalFile.MatchString("journal/" + e.Name()) }) {
			return fmt.Errorf("%w: in %s", ErrBookExists, place)
		}
	}
	return nil
}
