package routing

import (
	"log/slog"
	"time"

	"headway/internal/fleet"
)

// pauseGap is how long a head must take requests until its pause is over for the
// log: one that is full asks for another pause at each request.
const pauseGap = 10 * time.Second

// pauses are the heads that asked for a pause, for the goroutine of Run, so that each
// is logged once.
type pauses map[string]*pause

type pause struct{ began, until time.Time }

// look logs pauses that began or are over. Heads that left the fleet are forgotten.
func (p pauses) look(heads []*fleet.Head, now time.Time, log *slog.Logger) {
	known := 0
	for _, h := range heads {
		until, of := h.Live.AwayUntil(now), p[h.ID]
		switch {
		case of == nil && until.IsZero():
			continue
		case of == nil:
			p[h.ID] = &pause{began: now, until: until}
			log.Warn("a head asked for a pause: the data plane sends it nothing meanwhile", slog.String("head", h.ID), slog.Time("until", until))
		case !until.IsZero():
			of.until = until
		case now.Sub(of.until) >= pauseGap:
			log.Info("the pause that a head asked for is over", slog.String("head", h.ID), slog.Duration("lasted", of.until.Sub(of.began)))
			delete(p, h.ID)
			continue
		}
		known++
	}
	if known == len(p) {
		return
	}
	here := make(map[string]bool, len(heads))
	for _, h := range heads {
		here[h.ID] = true
	}
	for id := range p {
		if !here[id] {
			delete(p, id)
		}
	}
}

// paused counts the heads that are in a pause.
func (r *Router) paused() (n int) {
	now := r.o.Now()
	for _, h := range r.o.Fleet.Snapshot().Sorted() {
		if !h.Live.AwayUntil(now).IsZero() {
			n++
		}
	}
	return n
}
