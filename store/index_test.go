package store

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The index against a map, with hashes that collide, and that have their homes at the
// end of the slots and at their beginning.
func TestIndexAgreesWithMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ix index[*int]
		all := make(map[*int]uint64)
		hash := rapid.Uint64Range(0, 3).Draw(t, "part")<<(64-partBits) | 1<<32 // not 0
		hashes := rapid.Map(rapid.Uint64Range(0, 15), func(n uint64) uint64 { return hash + (n-8)&0xff })
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "remove") == 0 && len(all) > 0 {
				items := slices.SortedFunc(ix.all(), func(a, b *int) int { return *a - *b })
				item := rapid.SampledFrom(items).Draw(t, "item")
				ix.remove(all[item], is(item))
				delete(all, item)
			} else {
				item := new(int)
				*item = rapid.Int().Draw(t, "value")
				all[item] = hashes.Draw(t, "hash")
				ix.add(all[item], item)
			}
			count := 0
			for item := range ix.all() {
				if _, ok := all[item]; !ok {
					t.Fatal("an item too many")
				}
				count++
			}
			if count != len(all) {
				t.Fatalf("%d items, want %d", count, len(all))
			}
			for wanted, hash := range all {
				if found := item(ix.find(hash, is(wanted))); found != wanted {
					t.Fatalf("%d with hash %d is not found", *wanted, hash)
				}
			}
			if found := ix.find(hashes.Draw(t, "another"), func(**int) bool { return false }); found != nil {
				t.Fatal("found what nobody wants")
			}
		}
	})
}
