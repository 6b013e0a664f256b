package policy

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"headway/internal/strict"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Difference is one place where two documents differ. Before or After is nil
// where the value is not there.
type Difference struct {
	Pointer       string // JSON Pointer
	Before, After []byte // JSON
}

// Differences lists where b differs from a, in the order of the pointers'
// names: members of objects one by one, lists element by element.
func Differences(a, b *Policy) ([]Difference, error) {
	before, err := a.tree()
	after, err2 := b.tree()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	var found []Difference
	err = differ("", before, after, func(d Difference) { found = append(found, d) })
	return found, err
}

func (p *Policy) tree() (v any, err error) {
	err = json.Unmarshal(p.Canonical, &v)
	return v, err
}

// missing is a value that is not there; null would be one that is.
type missing struct{}

func differ(at string, a, b any, found func(Difference)) error {
	if objectA, ok := a.(map[string]any); ok {
		if objectB, ok := b.(map[string]any); ok {
			names := slices.AppendSeq(slices.Collect(maps.Keys(objectA)), maps.Keys(objectB))
			slices.Sort(names)
			for _, name := range slices.Compact(names) {
				if err := differ(at+"/"+strict.Escape(name), member(objectA, name), member(objectB, name), found); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if listA, ok := a.([]any); ok {
		if listB, ok := b.([]any); ok {
			for i := range max(len(listA), len(listB)) {
				if err := differ(at+"/"+strconv.Itoa(i), element(listA, i), element(listB, i), found); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if reflect.DeepEqual(a, b) {
		return nil
	}
	before, err := encode(a)
	after, err2 := encode(b)
	found(Difference{at, before, after})
	return errors.Join(err, err2)
}

func encode(v any) ([]byte, error) {
	if v == (missing{}) {
		return nil, nil
	}
	return json.Marshal(v, json.Deterministic(true))
}

func member(object map[string]any, name string) any {
	if v, ok := object[name]; ok {
		return v
	}
	return missing{}
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return missing{}
}

// Merge applies a JSON merge patch (RFC 7396) to the document and compiles the
// result as Parse does.
func (p *Policy) Merge(patch []byte) (*Policy, []strict.Fault) {
	if len(patch) > MaxBytes {
		return Parse(patch, "json") // which says how many it may have
	}
	var change map[string]any
	if err := json.Unmarshal(patch, &change); err != nil {
		fault := strict.Fault{Reason: "want a JSON object that is merged into the policy (RFC 7396)"}
		if at, ok := err.(*jsontext.SyntacticError); ok { //nolint:errorlint // it comes as it is
			fault.Pointer, fault.Reason = string(at.JSONPointer), "is not valid JSON, or a name given twice"
		}
		return nil, []strict.Fault{fault}
	}
	if change == nil {
		return nil, []strict.Fault{{Reason: "want an object that is merged into the policy, not null"}}
	}
	current, err := p.tree()
	merged, err2 := encode(mergePatch(current, change))
	if err := errors.Join(err, err2); err != nil {
		return nil, []strict.Fault{{Reason: err.Error()}}
	}
	return Parse(merged, "json")
}

// mergePatch is the function MergePatch of RFC 7396.
func mergePatch(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, v := range change {
		if v == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], v)
		}
	}
	return object
}
