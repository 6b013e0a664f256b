package fleet

import "time"

// Ending is what the end of a request says of the head that it was at.
type Ending uint8

// The endings. A request that was cancelled, or that the head refused for the
// caller's fault or for lack of room, says nothing of the head, and neither does
// one whose end was not reported.
const (
	EndedUnknown Ending = iota
	EndedWell
	EndedBadly
	EndedUnreported
)

// Outcomes takes how the requests at a head end, and hands out its trial. A head
// is passed to its own Outcomes alone. The methods are safe for concurrent use
// and do no I/O.
type Outcomes interface {
	// Observe takes how a request at the head ended, at a time of the
	// registry's clock. It is called once for each place that was taken but that
	// of a trial. What an ejected head does with the requests that no other
	// could take says nothing: its trials do.
	Observe(h *Head, end Ending, at time.Time)
	// ObserveTrial is Observe for a trial. Where the ejection is over by then,
	// the request counts as any other.
	ObserveTrial(h *Head, end Ending, at time.Time)
	// TryTrial takes the trial request of an ejected head, and a place for it and
	// its work. Only one caller succeeds for each trial that is offered.
	TryTrial(h *Head, w Work) bool
	// TrialAnswers notes that a trial began to be answered, which ends the
	// ejection.
	TrialAnswers(h *Head)
}
