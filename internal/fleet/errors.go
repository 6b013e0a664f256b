package fleet

import (
	"errors"
	"fmt"
	"time"
)

// Errors of the Registry that callers tell apart. Errors about what a caller
// sent are of type *strict.InvalidError.
var (
	ErrHeadNotFound = errors.New("no head with this id is registered")
	ErrStaleEpoch   = errors.New("the epoch is older than the head's registration")
	ErrFleetFull    = errors.New("the fleet has as many heads as the configuration allows")
	ErrOverloaded   = errors.New("too many changes wait to be written")
	ErrNotEjected   = errors.New("the head is not ejected")
)

// ContestedError refuses a registration of an id that another endpoint holds
// with a lease that has not ended: most often two machines have one id.
type ContestedError struct {
	ID      string
	Expires time.Time     // when the lease ends if it is not renewed
	Left    time.Duration // until then
}

func (e *ContestedError) Error() string {
	return fmt.Sprintf("head %s is registered at another endpoint, whose lease ends in %s unless it reports", e.ID, e.Left.Round(time.Millisecond))
}
