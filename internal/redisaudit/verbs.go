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
	do         func(c *client, args []string) (answer any)
}

// Answers that stand more than once.
const (
	ok        = status("OK")
	wrongPass = fault("WRONGPASS invalid username-password pair or user is disabled.")
	wrongName = fault("ERR Client names cannot contain spaces, newlines or special characters.")
)

// verbs are what common clients send before they subscribe, and what monitoring
// asks.
func verbs() map[string]verb {
	always := func(answer any) func(*client, []string) any {
		return func(*client, []string) any { return answer }
	}
	return map[string]verb{
		"auth":         {-2, false, (*client).auth},
		"client":       {-2, false, (*client).client},
		"cluster":      {-2, false, always(fault("ERR This instance has cluster support disabled"))},
		"command":      {-1, false, (*client).commands},
		"config":       {-2, false, (*client).config},
		"echo":         {2, false, func(_ *client, args []string) any { return args[0] }},
		"hello":        {-1, false, (*client).hello},
		"info":         {-1, false, (*client).info},
		"ping":         {-1, true, (*client).ping},
		"psubscribe":   {-2, true, func(c *client, args []string) any { return c.subscribe("psubscribe", true, args) }},
		"publish":      {3, false, always(fault("NOPERM only the service itself publishes here"))},
		"pubsub":       {-2, false, (*client).pubsub},
		"punsubscribe": {-1, true, func(c *client, args []string) any { return c.unsubscribe("punsubscribe", true, args) }},
		"quit":         {-1, true, func(c *client, _ []string) any { c.quit = true; return ok }},
		"reset":        {1, true, (*client).reset},
		"role":         {1, false, always(array{"master", 0, array{}})},
		"select":       {2, false, (*client).selects},
		"subscribe":    {-2, true, func(c *client, args []string) any { return c.subscribe("subscribe", false, args) }},
		"unsubscribe":  {-1, true, func(c *client, args []string) any { return c.unsubscribe("unsubscribe", false, args) }},
	}
}

// answer runs a command. The caller holds mu.
func (c *client) answer(cmd command) (any, error) {
	name := strings.ToLower(cmd.args[0])
	v, known := c.e.verbs[name]
	switch {
	case !known && cmd.inline:
		// An unknown word that is not a command is another protocol.
		return nil, protocolError("unknown command '" + printable(name) + "'")
	case !known:
		return fault("ERR unknown command '" + printable(name) + "': this Redis is embedded in headway and serves subscribers of " +
			c.e.o.Channel + "; for another see redis.mode"), nil
	case v.arity > 0 && len(cmd.args) != v.arity, len(cmd.args) < -v.arity:
		return wrongCount(name), nil
	case len(c.topics) > 0 && !c.resp3 && !v.subscribed:
		return fault("ERR Can't execute '" + name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"), nil
	}
	return v.do(c, cmd.args[1:]), nil
}

func wrongCount(name string) fault {
	return fault("ERR wrong number of arguments for '" + name + "' command")
}

func (c *client) ping(args []string) any {
	switch {
	case len(args) > 1:
		return wrongCount("ping")
	case len(c.topics) > 0 && !c.resp3:
		return array{"pong", strings.Join(args, "")}
	case len(args) == 1:
		return args[0]
	}
	return status("PONG")
}

func (c *client) hello(args []string) any {
	resp3, name := c.resp3, c.name
	if len(args) > 0 {
		v, err := strconv.Atoi(args[0])
		if err != nil {
			return fault("ERR Protocol version is not an integer or out of range")
		}
		if v != 2 && v != 3 {
			return fault("NOPROTO unsupported protocol version")
		}
		resp3, args = v == 3, args[1:]
	}
	for len(args) > 0 {
		switch option := strings.ToLower(args[0]); {
		case option == "auth" && len(args) >= 3:
			if args[1] != defaultUser {
				return wrongPass
			}
			args = args[3:]
		case option == "setname" && len(args) >= 2:
			if !validName(args[1]) {
				return wrongName
			}
			name, args = args[1], args[2:]
		default:
			return fault("ERR Syntax error in HELLO option '" + printable(args[0]) + "'")
		}
	}
	c.resp3, c.name = resp3, name
	return pairs{"server", "redis", "version", version, "proto", c.protocol(), "id", c.id, "mode", "standalone", "role", "master", "modules", array{}}
}

func (c *client) protocol() int {
	if c.resp3 {
		return 3
	}
	return 2
}

// defaultUser may have any password, as in a Redis without one.
const defaultUser = "default"

func (c *client) auth(args []string) any {
	switch {
	case len(args) == 1:
		return fault("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case len(args) > 2:
		return fault("ERR syntax error")
	case args[0] != defaultUser:
		return wrongPass
	}
	return ok
}

func validName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' })
}

// form is a subcommand with the number of its arguments, such as "setname 1".
func form(args []string) string {
	return fmt.Sprintf("%s %d", strings.ToLower(args[0]), len(args)-1)
}

func unknownSubcommand(name, sub string) fault {
	return fault("ERR unknown subcommand or wrong number of arguments for '" + printable(sub) + "'. Try " + name + " HELP.")
}

func (c *client) client(args []string) any {
	switch form(args) {
	case "id 0":
		return c.id
	case "info 0":
		return verbatim(fmt.Sprintf("id=%d addr=%s laddr=%s name=%s sub=%d resp=%d\n",
			c.id, c.conn.RemoteAddr(), c.conn.LocalAddr(), c.name, len(c.topics), c.protocol()))
	case "getname 0":
		if c.name == "" {
			return nil
		}
		return c.name
	case "setname 1":
		if !validName(args[1]) {
			return wrongName
		}
		c.name = args[1]
		return ok
	case "setinfo 2":
		// The library's name and version are ignored.
		if key := strings.ToLower(args[1]); key != "lib-name" && key != "lib-ver" {
			return fault("ERR Unrecognized option '" + printable(args[1]) + "'")
		}
		return ok
	case "no-evict 1", "no-touch 1":
		return ok
	}
	return unknownSubcommand("CLIENT", args[0])
}

func (c *client) commands(args []string) any {
	all := slices.Sorted(maps.Keys(c.e.verbs))
	if len(args) == 0 {
		return c.describe(all)
	}
	switch sub := form(args); {
	case sub == "info 0":
		return c.describe(all)
	case strings.HasPrefix(sub, "info "):
		return c.describe(args[1:])
	case sub == "count 0":
		return len(all)
	case sub == "list 0":
		list := array{}
		for _, name := range all {
			list = append(list, name)
		}
		return list
	case strings.HasPrefix(sub, "docs "):
		return pairs{}
	}
	return unknownSubcommand("COMMAND", args[0])
}

// describe returns name, arity and flags, without keys.
func (c *client) describe(names []string) any {
	list := array{}
	for _, name := range names {
		name = strings.ToLower(name)
		if v, known := c.e.verbs[name]; known {
			list = append(list, array{name, v.arity, array{status("loading"), status("fast")}, 0, 0, 0})
		} else {
			list = append(list, nil)
		}
	}
	return list
}

// config answers CONFIG GET with nothing.
func (c *client) config(args []string) any {
	if strings.EqualFold(args[0], "get") && len(args) > 1 {
		return pairs{}
	}
	return unknownSubcommand("CONFIG", args[0])
}

func (c *client) selects(args []string) any {
	switch db, err := strconv.Atoi(args[0]); {
	case err != nil:
		return fault("ERR value is not an integer or out of range")
	case db != 0:
		return fault("ERR DB index is out of range")
	}
	return ok
}

func (c *client) reset([]string) any {
	clear(c.topics)
	c.subscriptionsChanged()
	c.name, c.resp3 = "", false
	return status("RESET")
}

// info has the sections that clients and exporters read.
func (c *client) info(args []string) any {
	c.e.mu.Lock()
	clients, receiving := len(c.e.clients), 0
	for other := range c.e.clients {
		if len(*other.receives.Load()) > 0 {
			receiving++
		}
	}
	c.e.mu.Unlock()
	var text []string
	for _, s := range [][2]string{
		{"Server", fmt.Sprintf("redis_version:%s\r\nredis_mode:standalone\r\nembedded_in:headway\r\nuptime_in_seconds:%d\r\n", version, int(time.Since(c.e.began).Seconds()))},
		{"Clients", fmt.Sprintf("connected_clients:%d\r\nmaxclients:%d\r\npubsub_clients:%d\r\n", clients, maxClients, receiving)},
		{"Persistence", "loading:0\r\n"},
		{"Replication", "role:master\r\nconnected_slaves:0\r\n"},
		{"Cluster", "cluster_enabled:0\r\n"},
		{"Keyspace", ""},
	} {
		wanted := func(arg string) bool {
			return slices.Contains([]string{"default", "all", "everything", strings.ToLower(s[0])}, strings.ToLower(arg))
		}
		if len(args) == 0 || slices.ContainsFunc(args, wanted) {
			text = append(text, "# "+s[0]+"\r\n"+s[1])
		}
	}
	return verbatim(strings.Join(text, "\r\n"))
}

func (c *client) pubsub(args []string) any {
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
	switch sub := form(args); {
	case sub == "channels 0", sub == "channels 1":
		if exact == 0 || len(args) == 2 && !strict.Match(args[1], channel, element) {
			return array{}
		}
		return array{channel}
	case strings.HasPrefix(sub, "numsub "):
		list := array{}
		for _, name := range args[1:] {
			n := 0
			if name == channel {
				n = exact
			}
			list = append(list, name, n)
		}
		return list
	case sub == "numpat 0":
		return len(patterns)
	}
	return unknownSubcommand("PUBSUB", args[0])
}
