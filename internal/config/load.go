package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"headway/internal/strict"
)

// Variables of the command line, which the service ignores.
const (
	EnvServer      = "HEADWAY_SERVER"
	EnvExternalURL = "HEADWAY_EXTERNAL_URL" // a setting, which other commands take as well
	EnvToken       = "HEADWAY_TOKEN"
	EnvTokenFile   = "HEADWAY_TOKEN_FILE"
	EnvCAFile      = "HEADWAY_CA_FILE"
	EnvDataDir     = "HEADWAY_DATA_DIR" // which is a setting, too
)

type source struct {
	name string // flag --listen, environment HEADWAY_LISTEN, a file
	line int    // in the file; 0: has none
}

var byDefault = source{name: "default"}

func (s source) String() string {
	if s.line > 0 {
		return fmt.Sprintf("%s:%d", s.name, s.line)
	}
	return s.name
}

func (c *Config) source(key string) source {
	if s, ok := c.sources[key]; ok {
		return s
	}
	return byDefault
}

// Fault is one fault of the configuration.
type Fault struct {
	Key    string // of the setting, or the unknown name as it was given; "" for a whole file
	Source string
	Reason string
}

func (f Fault) String() string {
	if f.Key == "" {
		return f.Source + ": " + f.Reason
	}
	return fmt.Sprintf("%s (%s): %s", f.Key, f.Source, f.Reason)
}

// Error lists all faults of the configuration.
type Error struct{ Faults []Fault }

const maxListed = 100

func (e *Error) Error() string {
	if len(e.Faults) == 1 {
		return "configuration: " + e.Faults[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d faults", len(e.Faults))
	for i, f := range e.Faults {
		if i == maxListed {
			fmt.Fprintf(&b, "\n  and %d more", len(e.Faults)-i)
			break
		}
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// AddFlags adds a flag for each setting, and --config.
func AddFlags(fs *pflag.FlagSet) {
	fs.String(ConfigFlag, "", "YAML file with settings ("+ConfigEnv+")")
	for _, s := range Settings() {
		v := &flagValue{kind: s.Kind, text: s.Default}
		f := fs.VarPF(v, s.Flag, "", fmt.Sprintf("%s (%s)", s.Description, s.Allowed))
		if s.Kind == KindBool {
			f.NoOptDefVal = "true"
		}
	}
}

// flagValue keeps the text of a flag; Load validates it with all others.
type flagValue struct {
	kind  Kind
	text  string
	given bool
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return string(v.kind) }

func (v *flagValue) Set(text string) error {
	if v.kind == KindList && v.given {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}

// Load reads the configuration from the flags of fs that AddFlags adds or that have
// the same names (fs may be nil), the HEADWAY_* variables of environ, the file that
// --config or HEADWAY_CONFIG names, and the defaults, in this order of precedence. An empty variable is
// unset. An invalid value is an error even if another source overrides it. The
// error is an *Error with every fault, those that checks find in the file's lists
// included.
func Load(fs *pflag.FlagSet, environ []string, readFile func(name string) ([]byte, error), checks ...Check) (Config, error) {
	var c Config
	l := &loader{table: newTable(&c), sources: map[string]source{}, lists: &c}
	vars := environment(environ)
	c.file = configFile(fs, vars)
	file := l.file(c.file, readFile)
	l.environment(vars)
	l.flags(fs)
	others := l.faults
	l.faults = nil // those of the file come first
	file.done(&c, checks)
	l.faults = append(l.faults, others...)
	c.sources = l.sources
	if len(l.faults) == 0 {
		l.faults = c.check()
	}
	if len(l.faults) > 0 {
		return Config{}, &Error{l.faults}
	}
	return c, nil
}

// loader applies sources, weakest first.
type loader struct {
	*table
	sources map[string]source
	lists   *Config // what the file lists and no setting is
	faults  []Fault
}

func (l *loader) fault(key string, from source, format string, args ...any) {
	l.faults = append(l.faults, Fault{keyOf(strict.Clip(key)), from.String(), fmt.Sprintf(format, args...)})
}

func (l *loader) give(s *setting, text string, from source) {
	if err := s.set(text); err != nil {
		l.fault(s.Key, from, "%s", err)
		return
	}
	l.sources[s.Key] = from
}

func configFile(fs *pflag.FlagSet, vars map[string]string) string {
	if fs != nil {
		if f := fs.Lookup(ConfigFlag); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	return vars[ConfigEnv]
}

func (l *loader) flags(fs *pflag.FlagSet) {
	if fs == nil {
		return
	}
	for _, s := range l.settings {
		if f := fs.Lookup(s.Flag); f != nil && f.Changed {
			l.give(s, f.Value.String(), source{name: "flag --" + s.Flag})
		}
	}
}

// environment returns the non-empty HEADWAY_* variables; the last of equal
// names counts.
func environment(environ []string) map[string]string {
	vars := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, envPrefix) {
			vars[name] = value
		}
	}
	for name, value := range vars {
		if value == "" {
			delete(vars, name)
		}
	}
	return vars
}

// foreign matches variables to ignore: those that Kubernetes sets for a service
// named headway, and those of the project's tests.
var foreign = regexp.MustCompile(`^HEADWAY_(TEST_.*=.*|(.*_)?SERVICE_(HOST|PORT)(_.*)?=.*|(.*_)?PORT=(tcp|udp|sctp)://.*|(.*_)?PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?=.*)$`)

func (l *loader) environment(vars map[string]string) {
	names := []string{strings.TrimPrefix(ConfigEnv, envPrefix)}
	for _, s := range l.settings {
		names = append(names, strings.TrimPrefix(s.Env, envPrefix))
		if text, given := vars[s.Env]; given {
			l.give(s, text, source{name: "environment " + s.Env})
			delete(vars, s.Env)
		}
	}
	delete(vars, ConfigEnv)
	for _, name := range []string{EnvServer, EnvToken, EnvTokenFile, EnvCAFile} {
		delete(vars, name)
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if foreign.MatchString(name + "=" + vars[name]) {
			continue
		}
		hint := ""
		if meant := strict.Nearest(strings.TrimPrefix(name, envPrefix), names); meant != "" {
			hint = "; did you mean " + envPrefix + meant + "?"
		}
		l.fault(name, source{name: "environment"}, "unknown variable%s", hint)
	}
}
