package mtls

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// step is one operation of a sequence. What it means depends on the world that it meets, so that a sequence stays one
// when some of its steps are left out.
type step struct {
	operation operation
	choice    uint32
}

func (s step) String() string { return fmt.Sprintf("%s(%d)", s.operation, s.choice) }

type operation int

const (
	get           operation = iota // some callers ask for a binding
	refuseCurrent                  // the binding in memory is refused
	refuseOld                      // one that was given out earlier is
	renew                          // a new one is demanded
	pass                           // time passes
	changeIMDS                     // IMDS begins to answer otherwise
	changeStore                    // the store does
	otherProcess                   // another process stores a binding
	release                        // IMDS answers a request that it held
	giveUp                         // a caller stops waiting
	operationCount
)

func (o operation) String() string {
	return [...]string{"get", "refuseCurrent", "refuseOld", "renew", "pass", "changeIMDS", "changeStore", "otherProcess",
		"release", "giveUp"}[o]
}

// sequence returns the steps of a seed and a number.
func sequence(seed, number uint64) []step {
	dice := rand.New(rand.NewPCG(seed, number))
	steps := make([]step, 5+dice.IntN(20))
	for i := range steps {
		steps[i] = step{operation(dice.IntN(int(operationCount))), dice.Uint32()}
		if dice.IntN(3) == 0 {
			steps[i].operation = get
		}
	}
	return steps
}

// The entry of an identity (cache, flight, budget, tombstones, order at the store) does what the design says
// (sections 5.2, 5.3 and 6), whatever happens in whichever order: made-up sequences of operations are run against it
// and against a model of the design. AZMTLS_SEED repeats them; a sequence that fails is printed as short as it can be
// made.
func TestModel(t *testing.T) {
	seed, count := rand.Uint64(), modelSequences
	if given := os.Getenv("AZMTLS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	if testing.Short() {
		count /= 50
	}
	t.Logf("AZMTLS_SEED=%d", seed)
	issued := newModelCertificates(t)
	var next, steps, seen atomic.Uint64
	var covered [operationCount]atomic.Uint64
	t.Run("sequences", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for number := next.Add(1); number <= uint64(count); number = next.Add(1) {
						s := sequence(seed, number)
						steps.Add(uint64(len(s)))
						w := runModel(issued, s)
						for i := range w.effects {
							covered[i].Add(uint64(w.effects[i]))
						}
						seen.Add(1)
						if len(w.complaints) > 0 {
							shortest, complaints := shorten(issued, s, w.complaints)
							t.Fatalf("sequence %d: %s\n%s", number, shortest, strings.Join(complaints, "\n"))
						}
					}
				})
			})
		}
	})
	t.Logf("%d sequences of %d steps in all", seen.Load(), steps.Load())
	for i := range covered {
		t.Logf("%s had an effect %d times", operation(i), covered[i].Load())
		require.NotZero(t, covered[i].Load(), operation(i).String())
	}
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		t.Logf(`RELIABILITY {"name":"model","sequences":%d,"steps":%d,"seed":%d}`, seen.Load(), steps.Load(), seed)
	}
}

// runModel runs a sequence until something is wrong, or to its end.
func runModel(issued *modelCertificates, steps []step) *modelWorld {
	w := newModelWorld(issued)
	for _, s := range steps {
		w.do(s)
		if len(w.complaints) > 0 {
			break
		}
	}
	w.end()
	return w
}

// shorten leaves out the steps without which it fails all the same.
func shorten(issued *modelCertificates, steps []step, complaints []string) ([]step, []string) {
	for again := true; again; {
		again = false
		for i := range steps {
			fewer := slices.Delete(slices.Clone(steps), i, i+1)
			for range 5 { // the jitter of the budget differs
				if w := runModel(issued, fewer); len(w.complaints) > 0 {
					steps, complaints, again = fewer, w.complaints, true
					break
				}
			}
			if again {
				break
			}
		}
	}
	return steps, complaints
}

// rationing is the budget of the design (section 5.3), known up to its jitter.
type rationing struct {
	most             time.Duration // the cap
	level            int
	last             time.Duration
	earliest, latest time.Duration // when the next unit comes
}

// certain reports whether there is a unit; known is false in the time that the jitter leaves open.
func (r *rationing) certain(now time.Duration) (available, known bool) {
	return now >= r.latest, now < r.earliest || now >= r.latest
}

// spend takes a unit, whether there is one or not.
func (r *rationing) spend(now time.Duration) {
	back := int((now - r.last) / r.most)
	steps := 1 // from one second to the cap
	for delay := time.Second; delay < r.most; delay *= 2 {
		steps++
	}
	r.level = min(max(0, r.level-back)+1, steps)
	delay := min(time.Second<<(r.level-1), r.most)
	r.last, r.earliest, r.latest = now, now+delay*89/100, now+delay*111/100
}

// Sequences that once showed a mistake.
func TestModelOnce(t *testing.T) {
	issued := newModelCertificates(t)
	for name, steps := range map[string][]step{
		// A save that hung while it deleted what an eviction before had left, and meanwhile there was another eviction.
		"evicted while a save hangs": {
			{get, 0}, {changeStore, uint32(refusesForGood)}, {refuseCurrent, 3}, {pass, 5}, {changeStore, uint32(held)},
			{renew, 0}, {renew, 0}, {refuseCurrent, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { require.Empty(t, runModel(issued, steps).complaints) })
		})
	}
}
