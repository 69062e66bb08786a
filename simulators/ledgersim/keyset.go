package ledgersim

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/sync/wire"
)

// keySet is the payload of topic keys: all pinned keys but the root, which signs it.
type keySet struct {
	header
	Keys []pinnedKey `json:"keys"`
}

type pinnedKey struct {
	Role      string `json:"role"`
	Public    string `json:"public"`
	NotBefore int64  `json:"not_before"`
	NotAfter  int64  `json:"not_after"`
}

// keyGrace is how long a key that was replaced still verifies: what it has signed is on phones and on its way.
const keyGrace = 24 * time.Hour

// putNews publishes a payload under its topic and keeps the one before, for whoever wants to see it come again.
func (l *Ledger) putNews(txn *badger.Txn, topic wire.Topic, whose string, p published) error {
	var had published
	if err := get(txn, signedKey(topic, whose), &had); err != nil && !errors.Is(err, errNone) {
		return err
	}
	if had.News.Version > 0 {
		before := had.News
		if had.Whole != nil {
			before = *had.Whole
		}
		p.Before = &before
	}
	return put(txn, signedKey(topic, whose), p)
}

// rotatable are the roles whose keys only sign: a new one takes over at once.
var rotatable = map[string]bool{"receipt": true, "policy": true}

// postKeys gives a role a new key, {"rotate":"receipt"}, and tells every terminal in a key set.
func (l *Ledger) postKeys(r *http.Request) (any, error) {
	var in struct {
		Rotate string `json:"rotate"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if !rotatable[in.Rotate] {
		return nil, refusal("MALFORMED_REQUEST")
	}
	var set keySet
	err := l.publish(func(txn *badger.Txn) (err error) {
		set, err = l.rotate(txn, in.Rotate)
		return err
	})
	return map[string]any{"version": set.Version, "keys": set.Keys}, err
}

// rotate makes the new key and the set that names it. The key's file is in its place before anything is signed with it.
func (l *Ledger) rotate(txn *badger.Txn, role string) (set keySet, err error) {
	if err := l.newest(txn, wire.TopicKeys, &set); err != nil {
		return set, err
	}
	now := l.now()
	if set.Version == 0 {
		for _, k := range l.pinned() {
			if k.Role != "root" {
				set.Keys = append(set.Keys, pinnedKey{k.Role, k.Public, int64(k.NotBefore), int64(k.NotAfter)})
			}
		}
	}
	old := hex.EncodeToString(publicOf(l.role[role]))
	for i, k := range set.Keys {
		if k.Role == role && k.Public == old {
			set.Keys[i].NotAfter = now.Add(keyGrace).Unix()
		}
	}
	key, err := l.nextKey(role)
	if err != nil {
		return set, err
	}
	set.Keys = append(set.Keys, pinnedKey{role, hex.EncodeToString(publicOf(key)), now.Add(-time.Minute).Unix(), now.AddDate(5, 0, 0).Unix()})
	set.header = l.issued(everyone, set.Version+1)
	n, err := l.newsOf(wire.TopicKeys, set.Version, set)
	if err != nil {
		return set, err
	}
	if err := l.putNews(txn, wire.TopicKeys, everyone, published{News: n}); err != nil {
		return set, err
	}
	l.role[role] = key
	return set, nil
}

func (l *Ledger) nextKey(role string) (ed25519.PrivateKey, error) {
	path := filepath.Join(l.o.Dir, "ca", role+".key")
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := openKey(path + ".new")
	if err != nil {
		return nil, err
	}
	return key, os.Rename(path+".new", path)
}

// postReplay sends every connected terminal the version before the newest of a topic, {"topic":"policy"}: authentic, and old.
func (l *Ledger) postReplay(r *http.Request) (any, error) {
	var in struct {
		Topic wire.Topic `json:"topic"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	var p published
	err := l.db.View(func(txn *badger.Txn) error { return get(txn, signedKey(in.Topic, everyone), &p) })
	if errors.Is(err, errNone) || err == nil && p.Before == nil {
		return nil, refusal("NOT_FOUND")
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	conns := slices.Collect(maps.Values(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		for _, part := range frames(*p.Before) {
			if err := c.send(0, part); err != nil {
				break // it is gone
			}
		}
	}
	return map[string]any{"topic": in.Topic, "version": p.Before.Version}, nil
}
