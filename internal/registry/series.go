package registry

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// series are the names that have series of their own, of those that would if
// there were room. A name that has series keeps them: others that come do not push
// it into the sum, and it stays for a time after its last head.
type series[K comparable] struct {
	forget time.Duration   // after its last head
	last   map[K]time.Time // when it had heads
}

func newSeries[K comparable](forget time.Duration) series[K] {
	return series[K]{forget, map[K]time.Time{}}
}

// update takes the names that have heads now, and returns how many of them have
// no series.
func (n *series[K]) update(now time.Time, present []K) (folded int) {
	for _, name := range present {
		if n.has(name) {
			n.last[name] = now
		}
	}
	maps.DeleteFunc(n.last, func(_ K, last time.Time) bool { return now.Sub(last) > n.forget })
	for _, name := range present {
		switch {
		case n.has(name):
		case len(n.last) < maxNames:
			n.last[name] = now
		default:
			folded++
		}
	}
	return folded
}

func (n *series[K]) has(name K) bool {
	_, has := n.last[name]
	return has
}

// dimension is the model types, or the regions, that metrics tell apart. Its
// series are the collector's.
type dimension struct {
	departures
	series                        series[string]
	overflows                     string // the metric that headway_label_overflow names
	registered, routable, missing *prometheus.Desc
}

func newDimension(overflows string, registered, routable, missing *prometheus.Desc) *dimension {
	return &dimension{
		departures: departures{last: map[string]departure{}, lost: map[string]time.Time{}}, series: newSeries[string](remembered),
		overflows: overflows, registered: registered, routable: routable, missing: missing,
	}
}

func (d *dimension) collect(ch chan<- prometheus.Metric, now time.Time, all map[string]have) {
	for _, name := range d.take(now, all) {
		delete(d.series.last, name)
	}
	gaugeOf(ch, overflowDesc, float64(d.series.update(now, slices.Sorted(maps.Keys(all)))), d.overflows)
	shown := map[string]have{}
	for name := range d.series.last {
		if _, there := all[name]; !there {
			shown[name] = have{missing: 1} // its heads went, and not on purpose
		}
	}
	for name, of := range all {
		if !d.series.has(name) {
			name = other
		}
		shown[name] = shown[name].and(of)
	}
	for name, of := range shown {
		gaugeOf(ch, d.registered, float64(of.registered), name)
		gaugeOf(ch, d.routable, float64(of.routable), name)
		gaugeOf(ch, d.missing, float64(of.missing), name)
	}
}
