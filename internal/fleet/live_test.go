package fleet

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var someTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Of a hundred that ask at once for the one place there is, one gets it.
func TestOneOfManyGetsTheLastPlace(t *testing.T) {
	for range 200 {
		var l Live
		var taken atomic.Int64
		var wait sync.WaitGroup
		begin := make(chan struct{})
		for range 100 {
			wait.Go(func() {
				<-begin
				if l.TryAcquire(1, Work{}) {
					taken.Add(1)
				}
			})
		}
		close(begin)
		wait.Wait()
		if taken.Load() != 1 || l.InFlight() != 1 {
			t.Fatalf("%d got the one place, %d are in flight", taken.Load(), l.InFlight())
		}
	}
}

// What a report says beyond our own count, however it says it.
func TestBeyond(t *testing.T) {
	load := func(change func(*Load)) *Load {
		l := UnknownLoad()
		change(&l)
		return &l
	}
	for name, c := range map[string]struct {
		limit   int64
		load    *Load
		beyond  float64
		counted bool
		full    bool
	}{
		"nothing":                 {100, load(func(*Load) {}), 0, false, false},
		"less than our own":       {100, load(func(l *Load) { l.InFlight = 5 }), 0, true, false},
		"more than our own":       {100, load(func(l *Load) { l.InFlight = 17 }), 7, true, false},
		"waiting":                 {100, load(func(l *Load) { l.Queued = 12 }), 2, true, false},
		"running and waiting":     {100, load(func(l *Load) { l.InFlight, l.Queued = 9, 9 }), 8, true, false},
		"all places":              {100, load(func(l *Load) { l.InFlight = 100 }), 90, true, true},
		"all places but one":      {100, load(func(l *Load) { l.InFlight = 99 }), 89, true, false},
		"all places are our own":  {10, load(func(l *Load) { l.InFlight = 10 }), 0, true, false},
		"all places, one waits":   {100, load(func(l *Load) { l.InFlight, l.Queued = 100, 1 }), 91, true, true},
		"more than all":           {100, load(func(l *Load) { l.InFlight = 101 }), 91, true, true},
		"no limit, none waits":    {0, load(func(l *Load) { l.InFlight = 900 }), 890, true, false},
		"no limit, some wait":     {0, load(func(l *Load) { l.InFlight, l.Queued = 256, 1 }), 247, true, true},
		"no limit, few, and wait": {0, load(func(l *Load) { l.InFlight, l.Queued = 50, 10 }), 50, true, false},
		"KV cache":                {100, load(func(l *Load) { l.KVCacheUsage = 0.95 }), 0, false, true},
		"KV cache, nearly":        {100, load(func(l *Load) { l.KVCacheUsage = 0.949 }), 0, false, false},
		"utilization alone":       {100, load(func(l *Load) { l.Utilization = 0.6 }), 50, true, false},
		"all is used":             {100, load(func(l *Load) { l.Utilization = 1 }), 90, true, true},
		"all is used, no limit":   {0, load(func(l *Load) { l.Utilization = 1 }), 246, true, true},
		"all is used by few":      {100, load(func(l *Load) { l.Utilization, l.InFlight = 1, 12 }), 2, true, false},
		"tokens take no place":    {13, load(func(l *Load) { l.InFlight, l.PendingPromptTokens = 11, 8192 }), 5, true, false},
		"utilization, no limit":   {0, load(func(l *Load) { l.Utilization = 0.5 }), 118, true, false},
		"utilization beside":      {100, load(func(l *Load) { l.Utilization, l.InFlight = 0.6, 12 }), 2, true, false},
		"pending tokens":          {100, load(func(l *Load) { l.InFlight, l.PendingPromptTokens = 12, 4096 }), 4, true, false},
		"pending tokens alone":    {100, load(func(l *Load) { l.PendingPromptTokens = 1024 }), 0.5, true, false},
		"more than fits":          {0, load(func(l *Load) { l.InFlight, l.Queued = MaxCount, MaxCount }), float64(beyondRequests) / BeyondUnit, true, true},
	} {
		var l Live
		for range 10 {
			l.TryAcquire(0, Work{})
		}
		l.TakeReport(c.load, someTime, c.limit, time.Second, 1)
		b := l.Beyond()
		if math.Abs(b.Requests()-c.beyond) > 0.07 || b.Counted() != c.counted || l.Full(10, c.limit, someTime) != c.full {
			t.Errorf("%s: %v beyond, counted %v, full %v; want %v, %v, %v", name, b.Requests(), b.Counted(), !c.full, c.beyond, c.counted, c.full)
		}
		if c.full && !b.MayFill(10, c.limit) {
			t.Errorf("%s: it may not be full", name)
		}
		if want := c.beyond > 0 || c.full; b.Matters() != want {
			t.Errorf("%s: matters %v", name, b.Matters())
		}
		if r := l.Report(); r.InFlight != 10 || r.Picks != 10 || !r.At.Equal(someTime) {
			t.Errorf("%s: the report was kept as %+v", name, r)
		}
	}
}

// A report shows our own requests late: what has just ended here is not the load
// of others, for one report.
func TestWhatHasJustEndedIsNotTheLoadOfOthers(t *testing.T) {
	var l Live
	counts := func(n int64) float64 {
		load := UnknownLoad()
		load.InFlight = n
		l.TakeReport(&load, someTime, 0, time.Second, 0)
		return l.Beyond().Requests()
	}
	for range 8 {
		l.TryAcquire(0, Work{})
	}
	if got := counts(8); got != 0 {
		t.Errorf("our own 8 count as %v beyond", got)
	}
	for range 8 {
		l.Release(Work{})
	}
	if got := counts(8); got != 0 {
		t.Errorf("a report that is late by one makes %v beyond", got)
	}
	if got := counts(8); got != 8 {
		t.Errorf("8 that are there still are %v beyond; want 8", got)
	}
}

// Our own requests come and go between two reports: a head is full as long as they
// and what is beyond them fill it.
func TestAHeadIsFullWithTheRequestsOfNow(t *testing.T) {
	for _, c := range []struct{ limit, own, reported int64 }{{1, 1, 1}, {4, 4, 4}, {4, 2, 4}, {4, 0, 4}, {4, 1, 2}, {100, 40, 99}} {
		var l Live
		for range c.own {
			l.TryAcquire(0, Work{})
		}
		load := UnknownLoad()
		load.InFlight = c.reported
		l.TakeReport(&load, someTime, c.limit, time.Second, 0)
		for own := range c.limit {
			want := c.reported > c.own && own+c.reported-c.own >= c.limit
			if got := l.Full(own, c.limit, someTime); got != want || got && !l.Beyond().MayFill(own, c.limit) {
				t.Errorf("%d of %d reported when %d were ours: with %d of ours it is full: %v", c.reported, c.limit, c.own, own, got)
			}
		}
	}
}

// The word that a head is full holds for 750 ms, as many times as the requests fill
// it, and at most 10 s, as that of a full KV cache does.
func TestTheWordThatAHeadIsFullGrowsOld(t *testing.T) {
	for _, c := range []struct {
		limit, running, queued int64
		kv                     float64
		want                   time.Duration
	}{
		{100, 100, 0, 0.5, 750 * time.Millisecond},
		{100, 100, 100, 0.5, 1500 * time.Millisecond},
		{100, 100, 300, 0.5, 3 * time.Second},
		{100, 100, 9000, 0.5, 10 * time.Second},
		{0, 256, 256, 0.5, 1500 * time.Millisecond},
		{100, 3, 0, 0.95, 10 * time.Second},
	} {
		var l Live
		load := UnknownLoad()
		load.InFlight, load.Queued, load.KVCacheUsage = c.running, c.queued, c.kv
		l.TakeReport(&load, someTime, c.limit, time.Second, 0)
		if !l.Full(0, c.limit, someTime.Add(c.want-1)) || l.Full(0, c.limit, someTime.Add(c.want)) {
			t.Errorf("%d running and %d queued of %d, KV cache %v: the word does not hold for %v", c.running, c.queued, c.limit, c.kv, c.want)
		}
	}
}

func TestReportsAgeByTheirOwnClock(t *testing.T) {
	var l Live
	load := UnknownLoad()
	load.InFlight, load.KVCacheUsage = 3, 1
	l.TakeReport(&load, someTime, 0, 20*time.Second, 0)
	if got := l.Beyond().Age(Clock(someTime.Add(1500 * time.Millisecond))); got != 1500 {
		t.Errorf("after 1.5 s the report is %d ms old", got)
	}
	if got := l.Beyond().Age(Clock(someTime.Add(-time.Second))); got != 0 {
		t.Errorf("a report that is newer than the clock is %d ms old; want 0", got)
	}
	l.ForgetReport()
	if l.Report() != nil || l.Beyond() != 0 || l.Full(0, 0, someTime) {
		t.Error("a forgotten report still says something")
	}
}

// Before a place has ended nothing is known of how they do, and reports are gone
// by if they have a count.
func TestOwnCounts(t *testing.T) {
	var l Live
	load := UnknownLoad()
	exact := func(want bool, when string) {
		t.Helper()
		if _, is := l.Exact(); is != want || l.OwnCounts() != want {
			t.Errorf("%s: exact %v, own count %v; want %v", when, is, l.OwnCounts(), want)
		}
	}
	l.TakeReport(&load, someTime, 0, time.Second, 0)
	exact(true, "without a count to go by")
	load.InFlight = 1
	l.TakeReport(&load, someTime, 0, time.Second, 0)
	exact(false, "with a count, before the first outcome")
	l.TryAcquire(0, Work{})
	l.Evict(Work{})
	exact(false, "after a place that was evicted")
	l.TryAcquire(0, Work{})
	l.Release(Work{})
	exact(true, "after the first outcome")
	l.TryAcquire(0, Work{})
	l.Expire(Work{})
	exact(false, "when places end by their time")
	l.ReportedLate()
	l.ReportedLate()
	exact(true, "when outcomes come late")
	if l.InFlight() != 0 {
		t.Errorf("%d in flight", l.InFlight())
	}

	var joined Live
	joined.TakeReport(&load, someTime, 0, time.Second, 0)
	if joined.ExpectTracked(false); joined.OwnCounts() {
		t.Error("it joined heads of which nothing is known, and its own count is gone by")
	}
	if joined.ExpectTracked(true); !joined.OwnCounts() {
		t.Error("it joined heads whose outcomes are reported, and its own count is not gone by")
	}
	joined.Expire(Work{})
	if joined.ExpectTracked(true); joined.OwnCounts() {
		t.Error("what was seen of it was forgotten")
	}
}

// After the slow start our own count is all there is to know again.
func TestTheEndOfTheSlowStartSettles(t *testing.T) {
	var l Live
	l.TryAcquire(0, Work{})
	l.Release(Work{})
	l.StartSlowly(someTime, 10*time.Second, 8)
	if _, exact := l.Exact(); exact {
		t.Error("exact during the slow start")
	}
	if got := l.SlowStart(someTime.Add(5 * time.Second)); got != 4 {
		t.Errorf("halfway the bias of 8 is %v", got)
	}
	if got := l.SlowStart(someTime.Add(10 * time.Second)); got != 0 {
		t.Errorf("at the end the bias is %v", got)
	}
	if _, exact := l.Exact(); !exact {
		t.Error("not exact after the slow start")
	}
}

// A place whose time ran out is not free while the head says that it is used.
func TestRuns(t *testing.T) {
	var l Live
	report := func(n int64) {
		load := UnknownLoad()
		load.InFlight = n
		l.TakeReport(&load, someTime, 0, time.Second, 0)
	}
	if l.Runs(someTime) {
		t.Error("runs by a report that never came")
	}
	for range 3 {
		l.TryAcquire(0, Work{})
	}
	for _, c := range []struct {
		reported int64
		runs     bool
	}{{Unknown, false}, {0, false}, {2, false}, {3, true}, {9, true}} {
		if report(c.reported); l.Runs(someTime) != c.runs {
			t.Errorf("3 places, %d reported: runs %v", c.reported, !c.runs)
		}
	}
	report(3)
	if !l.Runs(someTime.Add(3*time.Second)) || l.Runs(someTime.Add(3*time.Second+1)) {
		t.Error("the head's word holds for as long as its lease: three intervals")
	}
	l.TryAcquire(0, Work{}) // after the report, which cannot count it
	if !l.Runs(someTime) {
		t.Error("a new place is held against the report")
	}
	report(2)
	l.Expire(Work{})
	if l.Runs(someTime) {
		t.Error("3 of 4 places are left, 2 are reported: one more is to end")
	}
	if l.Expire(Work{}); !l.Runs(someTime) {
		t.Error("2 of 4 places are left and 2 are reported: they run")
	}
}

// A zero count is a count: nothing runs there.
func TestAnIdleReportIsNoMissingOne(t *testing.T) {
	for _, c := range []struct {
		running, queued, want int64
	}{{Unknown, Unknown, Unknown}, {0, Unknown, 0}, {Unknown, 0, 0}, {2, 3, 5}} {
		l := UnknownLoad()
		l.InFlight, l.Queued = c.running, c.queued
		if got := l.Requests(); got != c.want {
			t.Errorf("%d running and %d waiting are %d requests; want %d", c.running, c.queued, got, c.want)
		}
	}
}
