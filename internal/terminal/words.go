package terminal

import (
	"fmt"
	"time"
)

// Ago is how long ago a time was, in its largest unit.
func Ago(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return Short(now.Sub(*t)) + " ago"
}

// Short is a time in its largest unit.
func Short(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.unit {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return "0s"
}

// Count is a number of things, such as "1 place" or "2 places".
func Count[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

// Agree is a number and what is said of so many.
func Agree[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// OrDash is s, or - if there is none.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
