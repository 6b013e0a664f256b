package config

import (
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

func (t *table) add(key string, kind Kind, allowed, description string, set func(string) error, get func() string) *setting {
	s := &setting{
		Setting: Setting{
			Key: key, Kind: kind, Default: get(), Allowed: allowed, Description: description,
			Flag: strings.NewReplacer(".", "-", "_", "-").Replace(key),
			Env:  envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
		},
		set: set, get: get,
	}
	t.settings = append(t.settings, s)
	return s
}

func (t *table) find(key string) *setting {
	i := slices.IndexFunc(t.settings, func(s *setting) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return t.settings[i]
}

// form is a kind of text: its description, its check, and how it is shown
// without secrets.
type form struct {
	allowed string
	valid   func(string) bool
	show    func(string) string
}

func (t *table) text(key string, p *string, def string, f form, description string) {
	*p = def
	var s *setting
	s = t.add(key, KindText, f.allowed, description, func(text string) error {
		if !f.valid(text) {
			return fmt.Errorf("want %s, not %s", f.allowed, s.say(text))
		}
		*p = text
		return nil
	}, func() string { return *p })
	s.show, s.Secret = f.show, f.show != nil
}

func (t *table) choice(key string, p *string, def string, values []string, description string) {
	*p = def
	allowed := strings.Join(values, ", ")
	t.add(key, KindChoice, allowed, description, func(text string) error {
		if !slices.Contains(values, text) {
			return fmt.Errorf("want one of %s, not %s%s", allowed, quote(text), strict.DidYouMean(text, values))
		}
		*p = text
		return nil
	}, func() string { return *p })
}

func (t *table) duration(key string, p *time.Duration, def, least, most time.Duration, description string) {
	*p = def
	allowed := formatDuration(least) + " to " + formatDuration(most)
	t.add(key, KindDuration, allowed, description, func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("want a time with its unit, such as 250ms or 1h30m, not %s", quote(text))
		}
		if d < least || d > most {
			return fmt.Errorf("want %s, not %s", allowed, quote(text))
		}
		*p = d
		return nil
	}, func() string { return formatDuration(*p) })
}

func size[N int | int64](t *table, key string, p *N, def, least, most N, description string) {
	*p = def
	allowed := formatBytes(int64(least)) + " to " + formatBytes(int64(most))
	t.add(key, KindBytes, allowed, description, func(text string) error {
		n, ok := parseBytes(text)
		if !ok {
			return fmt.Errorf("want a size such as 512, 16KiB or 64MiB, not %s", quote(text))
		}
		if n < int64(least) || n > int64(most) {
			return fmt.Errorf("want %s, not %s", allowed, quote(text))
		}
		*p = N(n)
		return nil
	}, func() string { return formatBytes(int64(*p)) })
}

func (t *table) number(key string, p *int, def, least, most int, description string) {
	*p = def
	allowed := fmt.Sprintf("%d to %d", least, most)
	t.add(key, KindNumber, allowed, description, func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("want a whole number from %s, not %s", allowed, quote(text))
		}
		*p = n
		return nil
	}, func() string { return strconv.Itoa(*p) })
}

func (t *table) fraction(key string, p *float64, def, least, most float64, description string) *setting {
	*p = def
	allowed := fmt.Sprintf("%v to %v", least, most)
	return t.add(key, KindFraction, allowed, description, func(text string) error {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !(f >= least && f <= most) { // NaN too
			return fmt.Errorf("want a number from %s, not %s", allowed, quote(text))
		}
		*p = f
		return nil
	}, func() string { return strconv.FormatFloat(*p, 'g', -1, 64) })
}

func (t *table) number64(key string, p *float64, def, least, most float64, description string) {
	t.fraction(key, p, def, least, most, description).Kind = KindDecimal
}

func (t *table) boolean(key string, p *bool, def bool, description string) {
	*p = def
	t.add(key, KindBool, "true, false", description, func(text string) error {
		if text != "true" && text != "false" {
			return fmt.Errorf("want true or false, not %s", quote(text))
		}
		*p = text == "true"
		return nil
	}, func() string { return strconv.FormatBool(*p) })
}

const maxElements = 100

func (t *table) list(key string, p *[]string, f form, description string) {
	*p = nil
	allowed := fmt.Sprintf("at most %d of %s", maxElements, f.allowed)
	var s *setting
	s = t.add(key, KindList, allowed, description, func(text string) error {
		var list []string
		for _, element := range strings.Split(text, ",") {
			if element = strings.TrimSpace(element); element == "" && text == "" {
				break
			}
			if !f.valid(element) {
				return fmt.Errorf("want %s, not %s", f.allowed, s.say(element))
			}
			list = append(list, element)
		}
		if len(list) > maxElements {
			return fmt.Errorf("want %s, not %d", allowed, len(list))
		}
		*p = list
		return nil
	}, func() string { return strings.Join(*p, ",") })
	s.elements = func() []string { return *p }
	s.show, s.Secret = f.show, f.show != nil
}

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

func parseBytes(text string) (int64, bool) {
	size := int64(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, size = number, u.size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n * size, err == nil && n >= 0 && n <= math.MaxInt64/size
}
