package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// recipe is what a Dockerfile asks for. Only what an image without a base needs
// is understood; anything else is refused, since leaving it out would make
// another image than docker does.
type recipe struct {
	copies     []fileCopy
	env        []string // NAME=value
	labels     map[string]string
	user       string
	ports      []string // 8080/tcp
	volumes    []string
	stopSignal string
	entrypoint []string
	command    []string
}

// fileCopy is one COPY of one source.
type fileCopy struct {
	from     string // in the context, with slashes
	to       string // absolute; ends with a slash when the source goes into it
	uid, gid int
}

var errSyntax = errors.New("the Dockerfile is not one that can be built here")

// parseDockerfile reads the instructions FROM scratch, COPY, ENV, LABEL, USER,
// EXPOSE, VOLUME, STOPSIGNAL, ENTRYPOINT and CMD. Faults wrap errSyntax and name
// their line.
func parseDockerfile(text string) (recipe, error) {
	r := recipe{labels: make(map[string]string)}
	based := false
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		err := r.instruct(word, rest, based)
		if err != nil {
			return recipe{}, fmt.Errorf("%w: line %d: %w", errSyntax, n+1, err)
		}
		based = true
	}
	if !based {
		return recipe{}, fmt.Errorf("%w: it has no FROM scratch", errSyntax)
	}
	return r, nil
}

func (r *recipe) instruct(word, rest string, based bool) (err error) {
	if word == "FROM" {
		if based || rest != "scratch" {
			return errors.New("want FROM scratch, once")
		}
		return nil
	}
	if !based {
		return errors.New("want FROM scratch first")
	}
	if rest == "" || strings.HasSuffix(rest, `\`) || strings.Contains(rest, "$") {
		return fmt.Errorf("%s: want a value on one line, without variables", word)
	}
	switch word {
	case "COPY":
		return r.addCopies(strings.Fields(rest))
	case "ENV":
		return assign(rest, func(name, value string) { r.env = append(r.env, name+"="+value) })
	case "LABEL":
		return assign(rest, func(name, value string) { r.labels[name] = value })
	case "USER":
		_, _, err = parseOwner(rest)
		r.user = rest
	case "EXPOSE":
		if port, err := strconv.ParseUint(rest, 10, 16); err != nil || port == 0 {
			return fmt.Errorf("EXPOSE: want a port, not %q", rest)
		}
		r.ports = append(r.ports, rest+"/tcp")
	case "VOLUME":
		if !path.IsAbs(rest) || strings.ContainsAny(rest, " \t") {
			return fmt.Errorf("VOLUME: want one absolute path, not %q", rest)
		}
		r.volumes = append(r.volumes, rest)
	case "STOPSIGNAL":
		r.stopSignal = rest
	case "ENTRYPOINT":
		r.entrypoint, err = parseExec(rest)
	case "CMD":
		r.command, err = parseExec(rest)
	default:
		return fmt.Errorf("%s is not understood", word)
	}
	return err
}

func (r *recipe) addCopies(words []string) error {
	var c fileCopy
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		owner, ok := strings.CutPrefix(words[0], "--chown=")
		if !ok {
			return fmt.Errorf("COPY: %s is not understood", words[0])
		}
		var err error
		if c.uid, c.gid, err = parseOwner(owner); err != nil {
			return err
		}
		words = words[1:]
	}
	if len(words) < 2 {
		return errors.New("COPY: want sources and a destination")
	}
	sources, to := words[:len(words)-1], words[len(words)-1]
	if !path.IsAbs(to) || slices.Contains(strings.Split(to, "/"), "..") {
		return fmt.Errorf("COPY: want an absolute destination, not %q", to)
	}
	if len(sources) > 1 && !strings.HasSuffix(to, "/") {
		return fmt.Errorf("COPY: several sources need a destination that ends with a slash, not %q", to)
	}
	for _, from := range sources {
		if path.IsAbs(from) || slices.Contains(strings.Split(from, "/"), "..") || strings.ContainsAny(from, "*?[") {
			return fmt.Errorf("COPY: want a name inside the context, not %q", from)
		}
		c.from, c.to = path.Clean(from), to
		r.copies = append(r.copies, c)
	}
	return nil
}

// parseOwner takes numbers only: an image without a base has no names yet, and
// Kubernetes can tell only from a number that a user is not root.
func parseOwner(text string) (uid, gid int, err error) {
	user, group, ok := strings.Cut(text, ":")
	uid, errUser := strconv.Atoi(user)
	gid, errGroup := strconv.Atoi(group)
	if !ok || errUser != nil || errGroup != nil || uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("want UID:GID as numbers, not %q", text)
	}
	return uid, gid, nil
}

func parseExec(text string) (words []string, err error) {
	if err := json.Unmarshal([]byte(text), &words); err != nil { //nolint:forbidigo // a list of strings has no names that could be repeated
		return nil, fmt.Errorf("want a JSON list of strings, since there is no shell, not %q", text)
	}
	return words, nil
}

// assign takes NAME=value or NAME="a value".
func assign(text string, set func(name, value string)) error {
	name, value, ok := strings.Cut(text, "=")
	if quoted, err := strconv.Unquote(value); err == nil {
		value = quoted
	} else if strings.ContainsAny(value, ` "'`) {
		ok = false
	}
	if !ok || name == "" {
		return fmt.Errorf("want one NAME=value, not %q", text)
	}
	set(name, value)
	return nil
}
