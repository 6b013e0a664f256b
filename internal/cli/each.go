package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"headway/client"
)

// each does something with each of several things. If there is only one, its
// failure is the command's error. Of several each failure is printed and the
// rest go on, unless it would be the same for all; what was not tried then is
// named as well. The exit code is that of the failures if they agree, else 1.
func each[T any](cmd *cobra.Command, verb, kind string, list []T, do func(T) error) error {
	if len(list) == 1 {
		return do(list[0])
	}
	var failures []error
	tried := 0
	for _, x := range list {
		err := do(x)
		tried++
		if err == nil {
			continue
		}
		failures = append(failures, err)
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s: %s\n", kind, seen(fmt.Sprint(x)), seenLines(err.Error()))
		if cmd.Context().Err() != nil || errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnauthorized) {
			break
		}
	}
	if len(failures) == 0 {
		return nil
	}
	for _, x := range list[tried:] {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s: not tried\n", kind, seen(fmt.Sprint(x)))
	}
	said := fmt.Sprintf("%s: %d of %d failed", verb, len(failures), len(list))
	if left := len(list) - tried; left > 0 {
		said += fmt.Sprintf(", %d not tried", left)
	}
	return &codedError{commonCode(failures), &summaryError{said, failures[0]}}
}

// summaryError sums failures up that were printed.
type summaryError struct {
	said  string
	first error
}

func (e *summaryError) Error() string { return e.said }
func (e *summaryError) Unwrap() error { return e.first }

// commonCode is the exit code that all of the errors have, else 1.
func commonCode(list []error) int {
	code := codeOf(list[0])
	for _, err := range list[1:] {
		if codeOf(err) != code {
			return exitError
		}
	}
	return code
}
