package redisaudit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"headway/internal/strict"
)

// maxTopic is the length of the name of a channel or pattern.
const maxTopic = 256

// subscribe adds channels or patterns, each with an answer of its own.
func (c *client) subscribe(verb string, pattern bool, names []string) {
	for _, name := range names {
		topic := by{pattern, name}
		if !c.topics[topic] && (len(c.topics) >= maxChannels || len(name) > maxTopic) {
			c.reply.fault(fmt.Sprintf("ERR at most %d channels, of at most %d bytes", maxChannels, maxTopic))
			continue
		}
		c.topics[topic] = true
		c.subscription(verb, &name)
	}
	c.subscriptionsChanged()
}

// unsubscribe ends subscriptions; without names all of the kind.
func (c *client) unsubscribe(verb string, pattern bool, names []string) {
	if len(names) == 0 {
		for topic := range c.topics {
			if topic.pattern == pattern {
				names = append(names, topic.name)
			}
		}
		slices.Sort(names)
	}
	for _, name := range names {
		delete(c.topics, by{pattern, name})
		c.subscription(verb, &name)
	}
	if len(names) == 0 {
		c.subscription(verb, nil)
	}
	c.subscriptionsChanged()
}

// subscription confirms a change, with the number of subscriptions left.
func (c *client) subscription(verb string, name *string) {
	c.reply.push(3)
	c.reply.bulk(verb)
	if name == nil {
		c.reply.null()
	} else {
		c.reply.bulk(*name)
	}
	c.reply.integer(len(c.topics))
}

// subscriptionsChanged lets Publish see what matches the one channel. Patterns
// are matched here, once, and not for each record.
func (c *client) subscriptionsChanged() {
	channel := c.e.o.Channel
	receives := slices.SortedFunc(maps.Keys(c.topics), func(a, b by) int { return strings.Compare(a.name, b.name) })
	receives = slices.DeleteFunc(receives, func(t by) bool {
		return t.pattern && !strict.Match(t.name, channel, element) || !t.pattern && t.name != channel
	})
	if len(receives) > 0 && c.lines == nil {
		c.lines = make(chan string, maxWaiting)
		c.e.running.Go(c.deliver)
	}
	c.receives.Store(&receives)
}
