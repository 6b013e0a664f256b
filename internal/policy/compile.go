package policy

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"headway/internal/fleet"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// Compile makes a policy of a document that a program wrote, as Parse makes one
// of text. It keeps nothing of doc.
func Compile(doc Document) (*Policy, []strict.Fault) {
	text, err := doc.encode()
	if err != nil { // a number or a string that JSON cannot hold
		return nil, []strict.Fault{{Reason: err.Error()}}
	}
	return Parse(text, "json")
}

// compiler makes one policy.
type compiler struct {
	doc    *Document
	policy *Policy
	faults strict.List

	base      map[string]strategy.Values // what the document says of a strategy, by name
	unsound   map[string]bool            // the strategies of which it says something wrong
	building  []string                   // what is being made, outermost first
	instances int
}

func newCompiler(doc Document) *compiler {
	p := &Policy{
		Document: doc, byName: map[string]Instance{}, byModel: map[string][]int{},
		models: map[string]bool{}, may: map[string]bool{},
		regions: map[string]string{}, indices: map[string]int{},
	}
	return &compiler{
		doc: &p.Document, policy: p, faults: strict.List{Most: maxFaults},
		base: map[string]strategy.Values{}, unsound: map[string]bool{},
	}
}

// check finds the faults that are left in a document that was read: Parse and
// read find those of its size, format, fields and types.
func (c *compiler) check() {
	c.strategies()
	c.policy.standard = Plan{Rule: RuleDefault, RegionMode: strategy.RegionPrefer}
	c.choose(&c.policy.standard, c.doc.DefaultStrategy, nil, "/default_strategy", "")
	c.rules()
	c.distances()
	c.aliases()
	c.fallbacks()
	c.hedge()
	c.pools()
	c.shadow()
	c.callerMay()
}

// finish completes the policy of a document without faults.
func (c *compiler) finish() (*Policy, []strict.Fault) {
	var err error
	if c.policy.Canonical, err = c.doc.encode(); err != nil {
		return nil, []strict.Fault{{Reason: err.Error()}}
	}
	c.index()
	c.nameModels()
	c.warn()
	return c.policy, nil
}

// strategies makes each strategy with the parameters that the document gives.
func (c *compiler) strategies() {
	at := "/strategies"
	for _, name := range slices.Sorted(maps.Keys(c.doc.Strategies)) {
		spec := findSpec(name)
		if spec == nil {
			c.faults.Add(at+"/"+strict.Escape(name), "%s", UnknownStrategy(name))
			continue
		}
		values, faults := spec.Check(c.doc.Strategies[name].Parameters)
		c.base[name], c.unsound[name] = values, len(faults) > 0
		c.addFaults(at+"/"+strict.Escape(name)+"/parameters", faults)
	}
	for i := range specs {
		name := specs[i].Name
		if c.unsound[name] {
			continue
		}
		s, faults := c.build(name, nil)
		if len(faults) == 0 {
			c.policy.byName[name] = Instance{strategy.ChooserOf(s), &specs[i]}
			continue
		}
		// A strategy that needs parameters cannot be chosen by name alone. That is
		// no fault of a document that does not ask for it.
		c.unsound[name] = len(c.base[name]) > 0
		if c.unsound[name] {
			c.addFaults(at+"/"+strict.Escape(name)+"/parameters", faults)
		}
	}
}

func (c *compiler) addFaults(at string, faults []strict.Fault) {
	for _, f := range faults {
		c.faults.Add(at+f.Pointer, "%s", f.Reason)
	}
}

// choose puts the named strategy into p.
func (c *compiler) choose(p *Plan, name string, parameters map[string]any, at, parametersAt string) {
	switch p.Spec = findSpec(name); {
	case name == "":
		c.faults.Add(at, "is required; allowed are %s", strings.Join(StrategyNames(), ", "))
	case p.Spec == nil:
		c.faults.Add(at, "%s", UnknownStrategy(name))
	default:
		made, faults := c.build(name, parameters)
		if len(faults) > 0 && parametersAt == "" {
			parametersAt = "/strategies/" + strict.Escape(name) + "/parameters"
		}
		p.Strategy = strategy.ChooserOf(made)
		c.addFaults(parametersAt, faults)
	}
}

func (c *compiler) rules() {
	if n := len(c.doc.Rules); n > maxRules {
		c.faults.Add("/rules", "%d rules; at most %d are allowed", n, maxRules)
	}
	c.policy.rules = make([]compiledRule, min(len(c.doc.Rules), maxRules))
	for i := range c.policy.rules {
		doc, r, at := &c.doc.Rules[i], &c.policy.rules[i], "/rules/"+strconv.Itoa(i)
		match := at + "/match"
		r.model = c.pattern(doc.Match.ModelType, fleet.ModelTypeCharacters, fleet.MaxModelTypeLength, match+"/model_type")
		r.region = c.pattern(doc.Match.Region, fleet.NameCharacters, fleet.MaxNameLength, match+"/region")
		r.Rule, r.RegionMode = i, strategy.RegionPrefer
		if doc.RegionMode != "" {
			mode, ok := strategy.ParseRegionMode(doc.RegionMode)
			if !ok {
				c.faults.Add(at+"/region_mode", "%s",
					strict.Unknown("region mode", doc.RegionMode, []string{strategy.RegionPrefer.String(), strategy.RegionRequire.String()}))
			}
			r.RegionMode = mode
		}
		c.choose(&r.Plan, doc.Strategy, doc.Parameters, at+"/strategy", at+"/parameters")
		c.names(r.model, r.region)
	}
}

// pattern compiles a pattern for names of the given bytes.
func (c *compiler) pattern(s, allowed string, most int, at string) *strict.Glob {
	if len(s) > most || !madeOf(s, allowed+"*?") {
		c.faults.Add(at, "want at most %d of the characters %s, with * for any of them and ? for one, not %s", most, spell(allowed), strict.Quote(s))
		s = ""
	}
	return strict.NewGlob(s)
}

// name checks a name of the given bytes.
func (c *compiler) name(s, allowed string, most int, at string) bool {
	if s == "" || len(s) > most || !madeOf(s, allowed) {
		c.faults.Add(at, "want a name of 1 to %d of the characters %s, not %s", most, spell(allowed), strict.Quote(s))
		return false
	}
	return true
}

func (c *compiler) modelName(s, at string) bool {
	if !c.name(s, fleet.ModelTypeCharacters, fleet.MaxModelTypeLength, at) {
		return false
	}
	if strings.Contains(s, "..") {
		c.faults.Add(at, "a model type must not contain \"..\"")
		return false
	}
	return true
}

func madeOf(s, allowed string) bool {
	for i := range len(s) {
		if strings.IndexByte(allowed, s[i]) < 0 {
			return false
		}
	}
	return true
}

// spell writes a set of allowed bytes for people.
func spell(allowed string) string {
	return "A-Z a-z 0-9 " + strings.Join(strings.Split(fleet.Punctuation(allowed), ""), " ")
}

// distances checks the table of regions and prepares the matrix.
func (c *compiler) distances() {
	p := c.policy
	named := map[string]bool{}
	for _, from := range slices.Sorted(maps.Keys(c.doc.Regions)) {
		at := "/regions/" + strict.Escape(from)
		c.name(from, fleet.NameCharacters, fleet.MaxNameLength, at)
		named[from] = true
		distances := c.doc.Regions[from].DistancesMs
		for _, to := range slices.Sorted(maps.Keys(distances)) {
			at, d := at+"/distances_ms/"+strict.Escape(to), distances[to]
			c.name(to, fleet.NameCharacters, fleet.MaxNameLength, at)
			named[to] = true
			switch {
			case !(d >= 0 && d <= maxDistanceMs): // NaN too
				c.faults.Add(at, "want a distance from 0 to %d ms, not %v", int(maxDistanceMs), d)
			case from == to && d != 0:
				c.faults.Add(at, "a region is 0 ms away from itself; leave it out")
			}
		}
	}
	if len(named) > maxRegions {
		c.faults.Add("/regions", "%d different regions; at most %d are allowed", len(named), maxRegions)
		return
	}
	for i, name := range slices.Sorted(maps.Keys(named)) {
		p.regions[name], p.indices[name] = name, i
	}
	n := len(p.indices)
	p.distances = slices.Repeat([]float64{math.NaN()}, n*n)
	for from, doc := range c.doc.Regions {
		for to, d := range doc.DistancesMs {
			i, j := p.indices[from], p.indices[to]
			p.distances[i*n+j] = d
			if _, given := c.doc.Regions[to].DistancesMs[from]; !given {
				p.distances[j*n+i] = d
			}
		}
	}
}

func (c *compiler) aliases() {
	if n := len(c.doc.Aliases); n > maxAliases {
		c.faults.Add("/aliases", "%d aliases; at most %d are allowed", n, maxAliases)
	}
	for _, alias := range slices.Sorted(maps.Keys(c.doc.Aliases)) {
		at, target := "/aliases/"+strict.Escape(alias), c.doc.Aliases[alias]
		if !c.modelName(alias, at) || !c.modelName(target, at) {
			continue
		}
		if alias == target {
			c.faults.Add(at, "names itself; leave it out")
		} else if next, chained := c.doc.Aliases[target]; chained {
			c.faults.Add(at, "%s is an alias too, of %s; name the model type itself", strict.Quote(target), strict.Quote(next))
		}
		c.policy.models[alias], c.policy.models[target] = true, true
	}
}

func (c *compiler) pools() {
	if n := len(c.doc.Pools); n > maxPools {
		c.faults.Add("/pools", "%d pools; at most %d are allowed", n, maxPools)
	}
	for _, model := range slices.Sorted(maps.Keys(c.doc.Pools)) {
		at := "/pools/" + strict.Escape(model)
		if !c.modelName(model, at) {
			continue
		}
		if target, alias := c.doc.Aliases[model]; alias {
			c.faults.Add(at, "is an alias; bound the model type itself, %s", strict.Quote(target))
		}
		c.policy.models[model] = true
	}
}

// maxFields is how many fields of caller_may are looked at one by one.
const maxFields = 100

func (c *compiler) callerMay() {
	at := "/caller_may"
	fields := c.doc.CallerMay
	if len(fields) > maxFields {
		c.faults.Add(at, "%d fields; at most %d are allowed", len(fields), len(callerFields))
		fields = fields[:maxFields]
	}
	for i, field := range fields {
		switch {
		case !slices.Contains(callerFields, field):
			c.faults.Add(at+"/"+strconv.Itoa(i), "%s", strict.Unknown("field", field, callerFields))
		case c.policy.may[field]:
			c.faults.Add(at+"/"+strconv.Itoa(i), "%s is named twice", strict.Quote(field))
		default:
			c.policy.may[field] = true
		}
	}
}

// index finds for each model type that a rule names the rules that match it.
func (c *compiler) index() {
	p := c.policy
	for i := range p.rules {
		if g := p.rules[i].model; g.Literal {
			p.byModel[g.Pattern] = nil
		} else {
			p.unnamed = append(p.unnamed, i)
		}
	}
	for model := range p.byModel {
		for i := range p.rules {
			if p.rules[i].model.Match(model) {
				p.byModel[model] = append(p.byModel[model], i)
			}
		}
	}
}

// nameModels adds the model types that parameters of strategies name.
func (c *compiler) nameModels() {
	instances := slices.Collect(maps.Values(c.policy.byName))
	for i := range c.policy.rules {
		instances = append(instances, c.policy.rules[i].Instance)
	}
	for _, i := range instances {
		if names, ok := i.Strategy.(interface{ Models() []string }); ok {
			for _, m := range names.Models() {
				c.policy.models[m] = true
			}
		}
	}
}

// warn names the rules and fallbacks that can never match.
func (c *compiler) warn() {
	var warnings strict.Faults
	var rules, fallbacks []matching
	for i := range c.policy.rules {
		rules = append(rules, matching{c.policy.rules[i].model, c.policy.rules[i].region})
	}
	for i := range c.policy.fallbacks {
		fallbacks = append(fallbacks, matching{c.policy.fallbacks[i].model, c.policy.fallbacks[i].region})
	}
	c.warnOf("/rules", "rule", rules, &warnings)
	c.warnOf("/fallbacks", "fallback", fallbacks, &warnings)
	c.policy.Warnings = warnings
}
