package openai

import "strconv"

// Usage is what an engine reports of the tokens of one request. Input counts
// all of the prompt, Cached the part of it that was in a cache. What was not
// reported is Unknown.
type Usage struct{ Input, Output, Cached int64 }

// usage collects the reports of one answer. Parts come in several events, and
// zeros stand where an engine has nothing to say yet: of each count the largest
// is right, since counts of a stream are running sums.
type usage struct {
	input, output, cached, uncached int64 // as counted by OpenAI; uncached is Anthropic's input_tokens
	read, written, total            int64 // Anthropic's cache; total where it is all there is
}

func newUsage() usage {
	return usage{input: Unknown, output: Unknown, cached: Unknown, uncached: Unknown, read: Unknown, written: Unknown, total: Unknown}
}

// place is where the count of a name is collected, or nil.
func (u *usage) place(name string, d Dialect) *int64 {
	switch name {
	case "prompt_tokens":
		return &u.input
	case "input_tokens":
		if d == Anthropic {
			return &u.uncached
		}
		return &u.input
	case "completion_tokens", "output_tokens":
		return &u.output
	case "cache_read_input_tokens":
		return &u.read
	case "cache_creation_input_tokens":
		return &u.written
	case "total_tokens":
		return &u.total
	}
	return nil
}

// merge takes the object that is next, and passes over any other value.
func (u *usage) merge(c *cursor, d Dialect) {
	if c.peek() != '{' {
		c.skip()
		return
	}
	c.members(func(name []byte) {
		switch string(name) {
		case "prompt_tokens_details", "input_tokens_details":
			if c.peek() != '{' {
				c.skip()
				return
			}
			c.members(func(name []byte) {
				if v := c.tokens(); string(name) == "cached_tokens" {
					u.cached = max(u.cached, v)
				}
			})
		default:
			v := c.tokens()
			if to := u.place(string(name), d); to != nil {
				*to = max(*to, v)
			}
		}
	})
}

// tokens passes over a value; what is no whole number of a likely size is Unknown.
func (c *cursor) tokens() int64 {
	v, err := strconv.ParseInt(string(c.skip().Of(c.b)), 10, 64)
	if err != nil || v < 0 || v > 1<<40 {
		return Unknown
	}
	return v
}

// report is what was collected so far.
func (u *usage) report() Usage {
	r := Usage{Input: u.input, Output: u.output, Cached: max(u.cached, u.read)}
	if u.uncached != Unknown {
		r.Input = max(r.Input, u.uncached+max(u.read, 0)+max(u.written, 0))
	}
	if r.Input == Unknown && r.Output == Unknown {
		r.Input = u.total // rerank and score report no more
	}
	return r
}
