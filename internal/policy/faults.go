package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"headway/internal/strict"
)

// maxFaults is the most faults of one document that are listed; one more says
// how many there are besides.
const maxFaults = 1000

// place is where a value stands in a document. Places are linked, and written
// out only for a fault: a document is larger than its pointers are worth.
type place struct {
	in   *place // nil for the whole document
	name string // of a member
	at   int    // index of an element, -1 for a member
}

func (p *place) member(name string) *place { return &place{p, name, -1} }
func (p *place) element(i int) *place      { return &place{p, "", i} }

// pointer is the place as a JSON Pointer (RFC 6901).
func (p *place) pointer() string {
	if p == nil || p.in == nil {
		return ""
	}
	if p.at >= 0 {
		return p.in.pointer() + "/" + strconv.Itoa(p.at)
	}
	return p.in.pointer() + "/" + strict.Escape(p.name)
}

// root is the place of the whole document.
var root = &place{}

// faultList collects what is wrong with a document.
type faultList struct {
	list []locatedFault
	more int
}

type locatedFault struct {
	strict.Fault
	line int // 0: not told
}

func (f *faultList) add(at *place, format string, args ...any) { f.addLine(at, 0, format, args...) }

func (f *faultList) addLine(at *place, line int, format string, args ...any) {
	if f.full() {
		return
	}
	f.addAt(at.pointer(), line, fmt.Sprintf(format, args...))
}

// full counts one more fault that is not listed if the list is full. It is
// asked before a reason is written, which nobody would read.
func (f *faultList) full() bool {
	if len(f.list) < maxFaults {
		return false
	}
	f.more++
	return true
}

func (f *faultList) addAt(pointer string, line int, reason string) {
	if f.full() {
		return
	}
	f.list = append(f.list, locatedFault{strict.Fault{Pointer: pointer, Reason: reason}, line})
}

// all returns the faults, by line where they have one and else in the order
// they were found, or nil when there is none.
func (f *faultList) all() []strict.Fault {
	slices.SortStableFunc(f.list, func(a, b locatedFault) int { return a.line - b.line })
	var faults []strict.Fault
	for _, fault := range f.list {
		if fault.line > 0 {
			fault.Reason = fmt.Sprintf("line %d: %s", fault.line, fault.Reason)
		}
		faults = append(faults, fault.Fault)
	}
	if f.more > 0 {
		faults = append(faults, strict.Fault{Reason: fmt.Sprintf("more faults that are not listed: %d", f.more)})
	}
	return faults
}

// UnknownStrategy says that no strategy has the name, and which there are.
func UnknownStrategy(name string) string {
	return strict.Unknown("strategy", name, specNames())
}

// firstToken splits a JSON Pointer into its first name, unescaped, and whether
// there is one.
func firstToken(pointer string) (name string, ok bool) {
	if !strings.HasPrefix(pointer, "/") {
		return "", false
	}
	name, _, _ = strings.Cut(pointer[1:], "/")
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(name), true
}

// addElsewhere adds the faults that are neither at nor inside of a place that
// has one already: a value that could not be read is not missing too.
func (f *faultList) addElsewhere(other *faultList, lineOf func(pointer string) int) {
	known := f.list
	for _, fault := range other.list {
		if !slices.ContainsFunc(known, func(k locatedFault) bool {
			rest, inside := strings.CutPrefix(fault.Pointer, k.Pointer)
			return inside && (rest == "" || rest[0] == '/' && k.Pointer != "")
		}) {
			f.addAt(fault.Pointer, lineOf(fault.Pointer), fault.Reason)
		}
	}
	if len(known) == 0 {
		f.more += other.more // with known ones, nobody can say how many of them are other
	}
}
