package scenario

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

type outcome struct{ head, refused string }

// meet holds the outcomes of a decide line against what it expects:
//
//	-> a                 each goes to a
//	-> a|b               each goes to one of these
//	-> a=3 b=1..5        so many go to each, and none elsewhere
//	-> even 10% a b      each of these gets its equal share, give or take 10 %,
//	                     and none goes elsewhere
//	-> order a b c a     one after the other
//	-> same              all go to one head
//	-> refused REASON    each finds no head
func meet(expect []string, got []outcome) error {
	if expect[0] == "refused" {
		return meetRefused(expect[1:], got)
	}
	for i, o := range got {
		if o.refused != "" {
			return fmt.Errorf("decision %d of %d was refused: %s", i+1, len(got), o.refused)
		}
	}
	switch {
	case expect[0] == "order":
		return meetOrder(expect[1:], got)
	case expect[0] == "even":
		return meetEven(expect[1:], got)
	case expect[0] == "same" && len(expect) == 1:
		for _, o := range got {
			if o != got[0] {
				return fmt.Errorf("went to %s, not to one head", spread(got))
			}
		}
		return nil
	case strings.Contains(expect[0], "="):
		return meetSpread(expect, got)
	case len(expect) == 1:
		allowed := strings.Split(expect[0], "|")
		for _, o := range got {
			if !slices.Contains(allowed, o.head) {
				return fmt.Errorf("went to %s, want %s", spread(got), expect[0])
			}
		}
		return nil
	}
	return fmt.Errorf("%q is no expectation", strings.Join(expect, " "))
}

func meetRefused(reason []string, got []outcome) error {
	if len(reason) != 1 {
		return errors.New("refused takes one reason")
	}
	for i, o := range got {
		if o.refused != reason[0] {
			return fmt.Errorf("decision %d of %d: want it refused as %s, got head %q, reason %q", i+1, len(got), reason[0], o.head, o.refused)
		}
	}
	return nil
}

func meetOrder(want []string, got []outcome) error {
	heads := make([]string, len(got))
	for i, o := range got {
		heads[i] = o.head
	}
	if !slices.Equal(heads, want) {
		return fmt.Errorf("went to %s, want %s", strings.Join(heads, " "), strings.Join(want, " "))
	}
	return nil
}

func meetEven(words []string, got []outcome) error {
	if len(words) < 2 || !strings.HasSuffix(words[0], "%") {
		return errors.New("even takes a tolerance in % and the heads")
	}
	percent, err := number(strings.TrimSuffix(words[0], "%"), 0, 100)
	if err != nil {
		return err
	}
	heads := words[1:]
	share := float64(len(got)) / float64(len(heads))
	slack := share * float64(percent) / 100
	spans := make([]string, len(heads))
	for i, h := range heads {
		spans[i] = fmt.Sprintf("%s=%d..%d", h, int64(math.Ceil(share-slack)), int64(math.Floor(share+slack)))
	}
	return meetSpread(spans, got)
}

func meetSpread(expect []string, got []outcome) error {
	counts := map[string]int64{}
	for _, o := range got {
		counts[o.head]++
	}
	named := map[string]bool{}
	for _, e := range expect {
		head, span, ok := strings.Cut(e, "=")
		low, high, ranged := strings.Cut(span, "..")
		if !ranged {
			high = low
		}
		least, err := number(low, 0, maxDecisions)
		most, err2 := number(high, 0, maxDecisions)
		if err := errors.Join(err, err2); err != nil || !ok {
			return fmt.Errorf("%q is no expectation: want head=count or head=low..high", e)
		}
		if least > most {
			return fmt.Errorf("%q: no count is at least %d and at most %d", e, least, most)
		}
		if named[head] {
			return fmt.Errorf("%s is expected twice", head)
		}
		named[head] = true
		if n := counts[head]; n < least || n > most {
			return fmt.Errorf("%s got %d of %d, want %s; all: %s", head, n, len(got), span, spread(got))
		}
		delete(counts, head)
	}
	for head, n := range counts {
		return fmt.Errorf("%s got %d, and is not expected to get any", head, n)
	}
	return nil
}

func spread(got []outcome) string {
	counts := map[string]int{}
	for _, o := range got {
		counts[o.head]++
	}
	var list []string
	for head, n := range counts {
		list = append(list, fmt.Sprintf("%s=%d", head, n))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}
