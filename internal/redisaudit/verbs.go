package redisaudit

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/strict"
)

// version is the Redis version reported to clients.
const version = "7.2.0"

type verb struct {
	arity      int // with its own name; negative: at least so many
	subscribed bool
	do         func(c *client, args []string)
}

// verbs are what common clients send before they subscribe, and what monitoring
// asks.
func verbs() map[string]verb {
	return map[string]verb{
		"auth":         {-2, false, (*client).auth},
		"client":       {-2, false, (*client).client},
		"cluster":      {-2, false, func(c *client, _ []string) { c.reply.fault("ERR This instance has cluster support disabled") }},
		"command":      {-1, false, (*client).commands},
		"config":       {-2, false, (*client).config},
		"echo":         {2, false, func(c *client, args []string) { c.reply.bulk(args[0]) }},
		"hello":        {-1, false, (*client).hello},
		"info":         {-1, false, (*client).info},
		"ping":         {-1, true, (*client).ping},
		"psubscribe":   {-2, true, func(c *client, args []string) { c.subscribe("psubscribe", true, args) }},
		"publish":      {3, false, func(c *client, _ []string) { c.reply.fault("NOPERM only the service itself publishes here") }},
		"pubsub":       {-2, false, (*client).pubsub},
		"punsubscribe": {-1, true, func(c *client, args []string) { c.unsubscribe("punsubscribe", true, args) }},
		"quit":         {-1, true, func(c *client, _ []string) { c.quit = true; c.reply.ok() }},
		"reset":        {1, true, (*client).reset},
		"role": {1, false, func(c *client, _ []string) {
			c.reply.array(3)
			c.reply.items("master", 0)
			c.reply.array(0)
		}},
		"select":      {2, false, (*client).selects},
		"subscribe":   {-2, true, func(c *client, args []string) { c.subscribe("subscribe", false, args) }},
		"unsubscribe": {-1, true, func(c *client, args []string) { c.unsubscribe("unsubscribe", false, args) }},
	}
}

// answer runs a command. The caller holds mu.
func (c *client) answer(cmd command) error {
	name := strings.ToLower(cmd.args[0])
	v, known := c.e.verbs[name]
	switch {
	case !known && cmd.inline:
		// An unknown word that is not a command is another protocol.
		return protocolError("unknown command '" + printable(name) + "'")
	case !known:
		c.reply.fault("ERR unknown command '" + printable(name) + "': this Redis is embedded in headway and serves subscribers of " + c.e.o.Channel + "; for another see redis.mode")
	case v.arity > 0 && len(cmd.args) != v.arity, v.arity < 0 && len(cmd.args) < -v.arity:
		c.reply.fault("ERR wrong number of arguments for '" + name + "' command")
	case len(c.topics) > 0 && !c.reply.resp3 && !v.subscribed:
		c.reply.fault("ERR Can't execute '" + name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
	default:
		v.do(c, cmd.args[1:])
	}
	return nil
}

func (c *client) ping(args []string) {
	switch {
	case len(args) > 1:
		c.reply.fault("ERR wrong number of arguments for 'ping' command")
	case len(c.topics) > 0 && !c.reply.resp3:
		c.reply.bulks("pong", strings.Join(args, ""))
	case len(args) == 1:
		c.reply.bulk(args[0])
	default:
		c.reply.status("PONG")
	}
}

func (c *client) hello(args []string) {
	resp3, name := c.reply.resp3, c.name
	if len(args) > 0 {
		v, err := strconv.Atoi(args[0])
		if err != nil {
			c.reply.fault("ERR Protocol version is not an integer or out of range")
			return
		}
		if v != 2 && v != 3 {
			c.reply.fault("NOPROTO unsupported protocol version")
			return
		}
		resp3 = v == 3
		args = args[1:]
	}
	for len(args) > 0 {
		switch option := strings.ToLower(args[0]); {
		case option == "auth" && len(args) >= 3:
			if !c.allowed(args[1]) {
				return
			}
			args = args[3:]
		case option == "setname" && len(args) >= 2:
			if !c.validName(args[1]) {
				return
			}
			name, args = args[1], args[2:]
		default:
			c.reply.fault("ERR Syntax error in HELLO option '" + printable(args[0]) + "'")
			return
		}
	}
	c.reply.resp3, c.name = resp3, name
	c.reply.pairs(7)
	c.reply.items("server", "redis", "version", version, "proto", c.protocol(), "id", c.id, "mode", "standalone", "role", "master", "modules")
	c.reply.array(0)
}

func (c *client) protocol() int {
	if c.reply.resp3 {
		return 3
	}
	return 2
}

// auth accepts the default user with any password, as Redis without one does.
func (c *client) auth(args []string) {
	switch {
	case len(args) == 1:
		c.reply.fault("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case len(args) > 2:
		c.reply.fault("ERR syntax error")
	case c.allowed(args[0]):
		c.reply.ok()
	}
}

func (c *client) allowed(user string) bool {
	if user != "default" {
		c.reply.fault("WRONGPASS invalid username-password pair or user is disabled.")
	}
	return user == "default"
}

func (c *client) validName(name string) bool {
	ok := !strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' })
	if !ok {
		c.reply.fault("ERR Client names cannot contain spaces, newlines or special characters.")
	}
	return ok
}

func (c *client) client(args []string) {
	switch sub := strings.ToLower(args[0]); {
	case sub == "id" && len(args) == 1:
		c.reply.integer(c.id)
	case sub == "info" && len(args) == 1:
		c.reply.text(fmt.Sprintf("id=%d addr=%s laddr=%s name=%s sub=%d resp=%d\n", c.id, c.conn.RemoteAddr(), c.conn.LocalAddr(), c.name, len(c.topics), c.protocol()))
	case sub == "getname" && len(args) == 1:
		if c.name == "" {
			c.reply.null()
			return
		}
		c.reply.bulk(c.name)
	case sub == "setname" && len(args) == 2:
		if c.validName(args[1]) {
			c.name = args[1]
			c.reply.ok()
		}
	case sub == "setinfo" && len(args) == 3:
		// The library's name and version are ignored.
		if key := strings.ToLower(args[1]); key != "lib-name" && key != "lib-ver" {
			c.reply.fault("ERR Unrecognized option '" + printable(args[1]) + "'")
			return
		}
		c.reply.ok()
	case (sub == "no-evict" || sub == "no-touch") && len(args) == 2:
		c.reply.ok()
	default:
		c.unknownSubcommand("CLIENT", args[0])
	}
}

func (c *client) unknownSubcommand(name, sub string) {
	c.reply.fault("ERR unknown subcommand or wrong number of arguments for '" + printable(sub) + "'. Try " + name + " HELP.")
}

func (c *client) commands(args []string) {
	all := slices.Sorted(maps.Keys(c.e.verbs))
	sub := ""
	if len(args) > 0 {
		sub = strings.ToLower(args[0])
	}
	switch {
	case sub == "":
		c.describe(all)
	case sub == "info" && len(args) == 1:
		c.describe(all)
	case sub == "info":
		c.describe(args[1:])
	case sub == "count" && len(args) == 1:
		c.reply.integer(len(all))
	case sub == "list" && len(args) == 1:
		c.reply.bulks(all...)
	case sub == "docs":
		c.reply.pairs(0)
	default:
		c.unknownSubcommand("COMMAND", args[0])
	}
}

// describe writes name, arity and flags, without keys.
func (c *client) describe(names []string) {
	c.reply.array(len(names))
	for _, name := range names {
		v, known := c.e.verbs[strings.ToLower(name)]
		if !known {
			c.reply.null()
			continue
		}
		c.reply.array(6)
		c.reply.items(strings.ToLower(name), v.arity)
		c.reply.array(2)
		c.reply.status("loading")
		c.reply.status("fast")
		c.reply.items(0, 0, 0)
	}
}

// config answers CONFIG GET with nothing.
func (c *client) config(args []string) {
	if strings.EqualFold(args[0], "get") && len(args) > 1 {
		c.reply.pairs(0)
		return
	}
	c.unknownSubcommand("CONFIG", args[0])
}

func (c *client) selects(args []string) {
	db, err := strconv.Atoi(args[0])
	switch {
	case err != nil:
		c.reply.fault("ERR value is not an integer or out of range")
	case db != 0:
		c.reply.fault("ERR DB index is out of range")
	default:
		c.reply.ok()
	}
}

func (c *client) reset([]string) {
	clear(c.topics)
	c.subscriptionsChanged()
	c.name, c.reply.resp3 = "", false
	c.reply.status("RESET")
}

// info has the sections that clients and exporters read.
func (c *client) info(args []string) {
	c.e.mu.Lock()
	clients, receiving := len(c.e.clients), 0
	for other := range c.e.clients {
		if len(*other.receives.Load()) > 0 {
			receiving++
		}
	}
	c.e.mu.Unlock()
	sections := []struct{ name, text string }{
		{"Server", fmt.Sprintf("redis_version:%s\r\nredis_mode:standalone\r\nembedded_in:headway\r\nuptime_in_seconds:%d\r\n", version, int(time.Since(c.e.began).Seconds()))},
		{"Clients", fmt.Sprintf("connected_clients:%d\r\nmaxclients:%d\r\npubsub_clients:%d\r\n", clients, maxClients, receiving)},
		{"Persistence", "loading:0\r\n"},
		{"Replication", "role:master\r\nconnected_slaves:0\r\n"},
		{"Cluster", "cluster_enabled:0\r\n"},
		{"Keyspace", ""},
	}
	var text strings.Builder
	for _, s := range sections {
		wanted := func(arg string) bool {
			arg = strings.ToLower(arg)
			return arg == "default" || arg == "all" || arg == "everything" || arg == strings.ToLower(s.name)
		}
		if len(args) > 0 && !slices.ContainsFunc(args, wanted) {
			continue
		}
		if text.Len() > 0 {
			text.WriteString("\r\n")
		}
		text.WriteString("# " + s.name + "\r\n" + s.text)
	}
	c.reply.text(text.String())
}

func (c *client) pubsub(args []string) {
	channel := c.e.o.Channel
	exact, patterns := 0, map[string]bool{}
	c.e.mu.Lock()
	for other := range c.e.clients {
		for _, topic := range *other.receives.Load() {
			if topic.pattern {
				patterns[topic.name] = true
			} else {
				exact++
			}
		}
	}
	c.e.mu.Unlock()
	switch sub := strings.ToLower(args[0]); {
	case sub == "channels" && len(args) <= 2:
		if exact == 0 || len(args) == 2 && !strict.Match(args[1], channel, element) {
			c.reply.array(0)
			return
		}
		c.reply.bulks(channel)
	case sub == "numsub":
		c.reply.array(2 * len(args[1:]))
		for _, name := range args[1:] {
			n := 0
			if name == channel {
				n = exact
			}
			c.reply.items(name, n)
		}
	case sub == "numpat" && len(args) == 1:
		c.reply.integer(len(patterns))
	default:
		c.unknownSubcommand("PUBSUB", args[0])
	}
}
