package redisaudit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"headway/internal/strict"
)

// maxTopic bounds the name of a channel or pattern.
const maxTopic = 256

func (c *client) subscribe(verb string, pattern bool, names []string) any {
	var answers several
	for _, name := range names {
		topic := by{pattern, name}
		if !c.topics[topic] && (len(c.topics) >= maxChannels || len(name) > maxTopic) {
			answers = append(answers, fault(fmt.Sprintf("ERR at most %d channels, of at most %d bytes", maxChannels, maxTopic)))
			continue
		}
		c.topics[topic] = true
		answers = append(answers, push{verb, name, len(c.topics)})
	}
	c.subscriptionsChanged()
	return answers
}

// unsubscribe ends the named subscriptions, or all of the kind.
func (c *client) unsubscribe(verb string, pattern bool, names []string) any {
	if len(names) == 0 {
		for topic := range c.topics {
			if topic.pattern == pattern {
				names = append(names, topic.name)
			}
		}
		slices.Sort(names)
	}
	var answers several
	for _, name := range names {
		delete(c.topics, by{pattern, name})
		answers = append(answers, push{verb, name, len(c.topics)})
	}
	if len(names) == 0 {
		answers = several{push{verb, nil, len(c.topics)}}
	}
	c.subscriptionsChanged()
	return answers
}

// subscriptionsChanged caches which subscriptions match the one channel, so
// that Publish matches no patterns.
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
