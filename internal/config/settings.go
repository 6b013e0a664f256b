package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/strict"
)

// Setting describes one setting.
type Setting struct {
	Key         string // in the file, nested at the dots: lease.base_interval
	Flag        string // --lease-base-interval
	Env         string // HEADWAY_LEASE_BASE_INTERVAL
	Kind        Kind
	Default     string // as it is written; "" for none
	Allowed     string // for people: bounds, values, form
	Description string
	Secret      bool // its value may hold a secret, so that it is shown without
}

// Kind is what a setting's value is.
type Kind string

// The kinds of values and how they are written.
const (
	KindText     Kind = "string"
	KindChoice   Kind = "choice"
	KindDuration Kind = "duration" // 1h30m, 250ms
	KindBytes    Kind = "bytes"    // 64MiB, 16KiB, 512
	KindNumber   Kind = "number"   // a whole one
	KindFraction Kind = "fraction" // 0.5
	KindDecimal  Kind = "decimal"  // 2.5
	KindBool     Kind = "bool"     // true or false
	KindList     Kind = "list"     // an array in the file, elsewhere separated by commas
)

// Settings describes every setting, in the order of the manual.
func Settings() []Setting {
	t := newTable(&Config{})
	all := make([]Setting, len(t.settings))
	for i, s := range t.settings {
		all[i] = s.Setting
	}
	return all
}

// ConfigFlag and ConfigEnv name the file, which cannot name itself.
const (
	ConfigFlag = "config"
	ConfigEnv  = "HEADWAY_CONFIG"
	envPrefix  = "HEADWAY_"
)

type table struct {
	settings []*setting
}

type setting struct {
	Setting
	set      func(text string) error // keeps the old value when it fails
	get      func() string           // as set takes it
	elements func() []string
	// show returns a value or list element without secrets; nil if it has none.
	show func(text string) string
}

func (s *setting) say(text string) string {
	if s.Secret {
		return unsaid
	}
	return quote(text)
}

func (t *table) find(key string) *setting {
	i := slices.IndexFunc(t.settings, func(s *setting) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return t.settings[i]
}

// add adds a setting, whose value is at p, and gives it its default.
func add[T any](t *table, kind Kind, key string, p *T, def T, allowed, description string, parse func(string) (T, error), format func(T) string) *setting {
	*p = def
	s := &setting{
		Setting: Setting{
			Key: key, Kind: kind, Default: format(def), Allowed: allowed, Description: description,
			Flag: strings.NewReplacer(".", "-", "_", "-").Replace(key),
			Env:  envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
		},
		set: func(text string) error {
			v, err := parse(text)
			if err == nil {
				*p = v
			}
			return err
		},
		get: func() string { return format(*p) },
	}
	t.settings = append(t.settings, s)
	return s
}

func verbatim(s string) string { return s }

// form is a kind of text: its description, its check, and how it is shown
// without secrets.
type form struct {
	allowed string
	valid   func(string) bool
	show    func(string) string
}

func (t *table) text(key string, p *string, def string, f form, description string) {
	var s *setting
	s = add(t, KindText, key, p, def, f.allowed, description, func(text string) (string, error) {
		if !f.valid(text) {
			return "", fmt.Errorf("want %s, not %s", f.allowed, s.say(text))
		}
		return text, nil
	}, verbatim)
	s.show, s.Secret = f.show, f.show != nil
}

func (t *table) choice(key string, p *string, def string, values []string, description string) {
	allowed := strings.Join(values, ", ")
	add(t, KindChoice, key, p, def, allowed, description, func(text string) (string, error) {
		if !slices.Contains(values, text) {
			return "", fmt.Errorf("want one of %s, not %s%s", allowed, quote(text), strict.DidYouMean(text, values))
		}
		return text, nil
	}, verbatim)
}

func (t *table) boolean(key string, p *bool, def bool, description string) {
	add(t, KindBool, key, p, def, "true, false", description, func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, fmt.Errorf("want true or false, not %s", quote(text))
		}
		return text == "true", nil
	}, strconv.FormatBool)
}

// quantity is a kind of value that has bounds.
type quantity[T cmp.Ordered] struct {
	kind   Kind
	form   string // how it is written; "": as its bounds
	within string // before the bounds
	parse  func(string) (T, error)
	format func(T) string
}

var (
	duration = quantity[time.Duration]{KindDuration, "a time with its unit, such as 250ms or 1h30m", "", time.ParseDuration, formatDuration}
	size     = quantity[int64]{KindBytes, "a size such as 512, 16KiB or 64MiB", "", parseBytes, formatBytes}
	count    = quantity[int]{KindNumber, "", "a whole number from ", strconv.Atoi, strconv.Itoa}
	fraction = quantity[float64]{KindFraction, "", "a number from ", parseFloat, formatFloat}
	decimal  = quantity[float64]{KindDecimal, "", "a number from ", parseFloat, formatFloat}
)

func (q quantity[T]) add(t *table, key string, p *T, def, least, most T, description string) {
	allowed := q.format(least) + " to " + q.format(most)
	add(t, q.kind, key, p, def, allowed, description, func(text string) (T, error) {
		v, err := q.parse(text)
		switch {
		case err != nil && q.form != "":
			return v, fmt.Errorf("want %s, not %s", q.form, quote(text))
		case err != nil || !(v >= least && v <= most): // NaN too
			return v, fmt.Errorf("want %s%s, not %s", q.within, allowed, quote(text))
		}
		return v, nil
	}, q.format)
}

const maxElements = 100

func (t *table) list(key string, p *[]string, f form, description string) {
	allowed := fmt.Sprintf("at most %d of %s", maxElements, f.allowed)
	var s *setting
	s = add(t, KindList, key, p, nil, allowed, description, func(text string) (list []string, err error) {
		for element := range strings.SplitSeq(text, ",") {
			if element = strings.TrimSpace(element); element == "" && text == "" {
				break
			}
			if !f.valid(element) {
				return nil, fmt.Errorf("want %s, not %s", f.allowed, s.say(element))
			}
			list = append(list, element)
		}
		if len(list) > maxElements {
			return nil, fmt.Errorf("want %s, not %d", allowed, len(list))
		}
		return list, nil
	}, func(list []string) string { return strings.Join(list, ",") })
	s.elements = func() []string { return *p }
	s.show, s.Secret = f.show, f.show != nil
}

func parseFloat(text string) (float64, error) { return strconv.ParseFloat(text, 64) }
func formatFloat(f float64) string            { return strconv.FormatFloat(f, 'g', -1, 64) }

// formatDuration omits the zeros that time.Duration appends.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var byteUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseBytes(text string) (int64, error) {
	size := int64(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, size = number, u.size
			break
		}
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err == nil && int64(n) > math.MaxInt64/size {
		err = strconv.ErrRange
	}
	return int64(n) * size, err
}
