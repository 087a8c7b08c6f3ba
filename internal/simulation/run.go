package simulation

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// Summary is what came of many seeds.
type Summary struct {
	Seeds     int
	Events    int
	Devices   int
	Simulated time.Duration
	Took      time.Duration
	Reached   map[string]int // how often each rare branch was come to
	In        map[string]int // in how many seeds
	Failed    []Result       // by seed
	Uneven    []uint64       // seeds whose second history was another
}

// RunAll plays n seeds from the first on, as many at once as there are processors,
// and each twice-th of them a second time, whose history must be the same; twice 0
// is none. told is called for each result, by one goroutine at a time; it may be
// nil. After ten failures no more are begun.
func (s *Simulator) RunAll(ctx context.Context, first uint64, n, twice int, o Options, told func(Result)) (Summary, error) {
	const enough = 10
	sum := Summary{Reached: map[string]int{}, In: map[string]int{}}
	begun := time.Now()
	var mu sync.Mutex // guards what follows, and sum
	var failed error
	next, left := first, n
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 || failed != nil || len(sum.Failed) >= enough {
			return 0, false
		}
		left--
		next++
		return next - 1, true
	}
	var players sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				r, err := s.Run(ctx, seed, o)
				again := r
				if err == nil && twice > 0 && (seed-first)%uint64(twice) == 0 {
					again, err = s.Run(ctx, seed, o)
				}
				mu.Lock()
				if failed == nil {
					failed = err
				}
				if err == nil {
					sum.add(r, again)
					if told != nil {
						told(r)
					}
				}
				mu.Unlock()
			}
		})
	}
	players.Wait()
	sum.Took = time.Since(begun)
	slices.SortFunc(sum.Failed, func(a, b Result) int { return cmp.Compare(a.Seed, b.Seed) })
	slices.Sort(sum.Uneven)
	return sum, failed
}

func (sum *Summary) add(r, again Result) {
	sum.Seeds++
	sum.Events += r.Events
	sum.Devices += r.Devices
	sum.Simulated += r.Simulated
	for b, n := range r.Reached {
		sum.Reached[b] += n
		sum.In[b]++
	}
	if r.Failure != nil {
		sum.Failed = append(sum.Failed, r)
	}
	if r.History != again.History {
		sum.Uneven = append(sum.Uneven, r.Seed)
	}
}

// Err is what is wrong with the run: seeds that failed, or that were not the same
// twice, or a rare branch that was never come to.
func (sum *Summary) Err() error {
	switch missing := Missing(sum.Reached); {
	case len(sum.Failed) > 0:
		return fmt.Errorf("%d of %d seeds failed", len(sum.Failed), sum.Seeds)
	case len(sum.Uneven) > 0:
		return fmt.Errorf("the histories of seeds %d were not the same twice", sum.Uneven)
	case len(missing) > 0:
		return fmt.Errorf("%d rare branches were never come to: %q", len(missing), missing)
	}
	return nil
}

// Table writes the counts, and those of the rare branches.
func (sum *Summary) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "seeds\t%d\n", sum.Seeds)
	fmt.Fprintf(t, "simulated hours\t%.0f\n", sum.Simulated.Hours())
	fmt.Fprintf(t, "devices accepted\t%d\n", sum.Devices)
	fmt.Fprintf(t, "events\t%d\n", sum.Events)
	fmt.Fprintf(t, "seconds\t%.0f\n\nRare branch\tTimes\tSeeds\n", sum.Took.Seconds())
	for _, b := range Branches() {
		fmt.Fprintf(t, "%s\t%d\t%d\n", b, sum.Reached[b], sum.In[b])
	}
	return t.Flush()
}
