// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// clientTimeout is long enough for a machine that is emulated on a busy host.
const clientTimeout = 30 * time.Second

// store is what one client knows to be in a server: no other writes its keys,
// so there is one right answer to each of its questions.
type store struct {
	id      int
	version int
	values  map[string]string
}

const storeKeys = 64

func newStore(id int) store { return store{id: id, values: map[string]string{}} }

// pick chooses a key; its value is empty if none is known.
func (s *store) pick(rng *rand.Rand) (key, value string) {
	key = fmt.Sprintf("client:%d:%d", s.id, rng.IntN(storeKeys))
	return key, s.values[key]
}

// next is a value that no key ever had.
func (s *store) next(key string) string {
	s.version++
	v := fmt.Sprintf("%s=%d;", key, s.version)
	return v + strings.Repeat("x", 128-len(v))
}

func (s *store) stored(key, value string) { s.values[key] = value }

// forget says that what a key has is not known: nobody can say whether a write
// without a reply was done.
func (s *store) forget(key string) { delete(s.values, key) }

func (s *store) check(key, got string) error {
	if want := s.values[key]; got != want {
		s.forget(key)
		return wrong("get %s: %.40q, not %.40q", key, got, want)
	}
	return nil
}
