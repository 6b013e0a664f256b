package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/api"
	"headway/client"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/app"
	"headway/internal/audit"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/terminal"
)

func newKeys() *cobra.Command {
	r := new(remote)
	return r.addConfigFlag(r.addFlags(group("keys", "Make, list, change and revoke API keys", `Make, list, change and revoke API keys. With the first key, an administrator's, the
service asks every client for one. Without a service that runs, and without
--server, keys are made in the files of --data-dir.`,
		newKeysCreate(r), newKeysList(r), newKeysSet(r), newKeysRevoke(r))))
}

// keybook is where keys are kept: at a service, as *client.Client asks it, or in
// files that no service has open.
type keybook interface {
	CreateKey(ctx context.Context, r api.KeyRequest) (api.Key, error)
	Keys(ctx context.Context) iter.Seq2[api.Key, error]
	PatchKey(ctx context.Context, id string, p api.KeyPatch) (api.Key, error)
	RevokeKey(ctx context.Context, id string) error
}

// withKeys does something with the keys.
func (r *remote) withKeys(c *call, do func(context.Context, keybook) error) error {
	service := func(c *call) error { return do(c.Context(), c.Client) }
	if r.DataDir == "" && r.configFile == "" {
		return r.connected(c, service)
	}
	return r.either(c, service, func(settings config.Config) error {
		c.note("no service runs on %s: working on its files\n", settings.DataDir)
		id := "unknown"
		if u, err := user.Current(); err == nil {
			id = u.Username
		}
		return local.AsOwner(func() error {
			return app.OfflineKeys(c.Context(), settings, func(ctx context.Context, keys *access.Keys) error {
				ctx = audit.WithIdentity(ctx, &audit.Identity{Actor: audit.Actor{Type: "local", ID: id, Via: "cli"}})
				return do(ctx, fileKeys{keys, id})
			})
		}, settings.DataDir)
	})
}

// fileKeys implements keybook.
type fileKeys struct {
	keys *access.Keys
	user string
}

func (k fileKeys) CreateKey(ctx context.Context, r api.KeyRequest) (api.Key, error) {
	in := access.Request{Name: r.Name, Role: r.Role, Scopes: r.Scopes, Heads: r.Heads, Regions: r.Regions, Limits: access.Limits(r.KeyLimits)}
	if r.ExpiresInSeconds != nil {
		in.ExpiresIn = time.Duration(*r.ExpiresInSeconds) * time.Second
	}
	key, secret, err := k.keys.Create(ctx, &access.Principal{Type: "local", ID: k.user, Role: access.RoleAdmin}, in)
	if err != nil {
		return api.Key{}, offline(err)
	}
	out := apiv1.Key(access.Listed{Key: key})
	out.Secret = secret
	return out, nil
}

func (k fileKeys) Keys(context.Context) iter.Seq2[api.Key, error] {
	return func(yield func(api.Key, error) bool) {
		for _, listed := range k.keys.List() {
			if !yield(apiv1.Key(listed), nil) {
				return
			}
		}
	}
}

func (k fileKeys) PatchKey(ctx context.Context, id string, p api.KeyPatch) (api.Key, error) {
	key, err := k.keys.SetLimits(ctx, id, func(l *access.Limits) {
		for _, f := range []struct{ to, v *int64 }{
			{&l.RequestsPerMinute, p.RequestsPerMinute}, {&l.TokensPerMinute, p.TokensPerMinute}, {&l.Weight, p.Weight},
		} {
			if f.v != nil {
				*f.to = *f.v
			}
		}
	})
	if err != nil {
		return api.Key{}, offline(fmt.Errorf("change key %s: %w", id, err))
	}
	return apiv1.Key(key), nil
}

func (k fileKeys) RevokeKey(ctx context.Context, id string) error {
	if err := k.keys.Revoke(ctx, id); err != nil {
		return offline(fmt.Errorf("revoke key %s: %w", id, err))
	}
	return nil
}

// offline gives an error of the keys in files the exit code that the answer of a
// service would have.
func offline(err error) error {
	if p := apiv1.ProblemOf(err); p != nil {
		return &codedError{codeOf(&client.Error{Status: p.Status()}), err}
	}
	return err
}

func newKeysCreate(r *remote) *cobra.Command {
	var req api.KeyRequest
	var expires time.Duration
	var file string
	cmd := addOutput(command("create --role ROLE --name NAME", "Make a key; its secret is shown once",
		`Make a key. Its secret goes once, alone, to the file that --out names, which only
you can read, or to standard output. It is stored nowhere else: of it only a hash
is kept.

  headway keys create --role admin --name me --out admin.key
  headway keys create --role head --name rack-7 --head 'gpu-7-*' --in-region eu-west --out rack-7.key
  headway keys create --role client --name chat --expires 2160h --out chat.key
  headway keys create --role client --name batch --tokens-per-minute 100000 --weight 2 --out batch.key

Roles: viewer reads; operator also manages heads and decides; admin also
changes policy and keys; head registers and reports for the ids and regions
that are named; client decides and uses /v1.`, func(c *call) error {
			if expires != 0 {
				req.ExpiresInSeconds = new(int64(expires / time.Second))
			}
			return withOwnFile(file, "name another file with --out, or move that one away if its key is not used any more", c.w, func(w io.Writer) error {
				return r.withKeys(c, func(ctx context.Context, book keybook) error {
					key, err := book.CreateKey(ctx, req)
					if err != nil {
						return err
					}
					if c.structured() {
						return terminal.Write(w, c.format, key, nil)
					}
					shown := "this is the only time that it is shown:"
					if file != "" {
						shown = "it is in " + file
					}
					c.note("made key %s of role %s; %s\n", key.ID, key.Role, shown)
					return terminal.Printf(w, "%s\n", key.Secret)
				})
			})
		}))
	f := cmd.Flags()
	f.StringVar(&file, "out", "", "file to make for the secret, mode 0600, which must not exist; without one it goes to standard output")
	f.StringVar(&req.Name, "name", "", "name, for people")
	f.StringVar(&req.Role, "role", "", "viewer, operator, admin, head or client")
	f.StringSliceVar(&req.Scopes, "scope", nil, "of what the role may do only this: read, operate, decide, head or admin; may be given several times")
	f.StringSliceVar(&req.Heads, "head", nil, "of role head: an id that it may register, * stands for any characters; may be given several times")
	f.StringSliceVar(&req.Regions, "in-region", nil, "of role head: a region that it may register in; may be given several times")
	addLimits(f, &req.KeyLimits)
	f.DurationVar(&expires, "expires", 0, "time until it ends, 1m to 87600h; without one it does not")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin", "head", "client"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func addLimits(f *pflag.FlagSet, l *api.KeyLimits) {
	f.Int64Var(&l.RequestsPerMinute, "requests-per-minute", 0, "requests to /v1 a minute; 0: as admission.requests_per_minute says, -1: no limit")
	f.Int64Var(&l.TokensPerMinute, "tokens-per-minute", 0, "tokens of /v1 a minute, of prompts and answers; 0: as admission.tokens_per_minute says, -1: no limit")
	f.Int64Var(&l.Weight, "weight", 0, "share of the places relative to other keys where requests wait, 1 to 1000; without one 1")
}

func newKeysSet(r *remote) *cobra.Command {
	var limits api.KeyLimits
	cmd := command("set ID...", "Change what keys may use of /v1",
		`Change what keys may use of /v1, from the next request on. What is not named
stays as it is.

  headway keys set 4f1c2a9b03de --tokens-per-minute 200000 --weight 2`, func(c *call) error {
			var p api.KeyPatch
			for name, f := range map[string]struct {
				to **int64
				v  *int64
			}{
				"requests-per-minute": {&p.RequestsPerMinute, &limits.RequestsPerMinute},
				"tokens-per-minute":   {&p.TokensPerMinute, &limits.TokensPerMinute},
				"weight":              {&p.Weight, &limits.Weight},
			} {
				if c.Flags().Changed(name) {
					*f.to = f.v
				}
			}
			return r.withKeys(c, func(ctx context.Context, book keybook) error {
				return each(c, "key", c.args, func(id string) error {
					k, err := book.PatchKey(ctx, id, p)
					if err != nil {
						return err
					}
					return c.say("key %s: %d requests and %d tokens a minute, weight %d\n", k.ID, k.RequestsPerMinute, k.TokensPerMinute, max(k.Weight, 1))
				})
			})
		})
	addLimits(cmd.Flags(), &limits)
	return cmd
}

// withOwnFile has f write to a new file that only its owner reads, or to w
// without one. The file is there before anything else happens, so that no key is
// made which has no place; it goes if f fails. taken says what helps if the file
// exists.
func withOwnFile(name, taken string, w io.Writer, f func(io.Writer) error) error {
	if name == "" {
		return f(w)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; %s", err, taken)
	}
	if err != nil {
		return err
	}
	err = f(file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func newKeysList(r *remote) *cobra.Command {
	return addOutput(command("list", "List keys, without their secrets", "", func(c *call) error {
		return r.withKeys(c, func(ctx context.Context, book keybook) error { return list(c, book.Keys(ctx), 0, keyTable) })
	}))
}

func keyTable(keys []api.Key) *terminal.Table {
	now := time.Now()
	t := &terminal.Table{Columns: []string{"ID", "NAME", "ROLE", "STATE", "LAST USED", "CREATED", "SCOPES", "HEADS", "REGIONS", "REQUESTS/MIN", "TOKENS/MIN", "WEIGHT", "CREATED BY"}, Wide: 6}
	for i := range keys {
		k := &keys[i]
		state := "good"
		switch {
		case k.RevokedAt != nil:
			state = "revoked " + terminal.Ago(k.RevokedAt, now)
		case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
			state = "expired " + terminal.Ago(k.ExpiresAt, now)
		case k.ExpiresAt != nil:
			state = "good for " + terminal.Short(k.ExpiresAt.Sub(now))
		}
		t.Add(k.ID, k.Name, k.Role, state, terminal.Ago(k.LastUsedAt, now), terminal.Ago(&k.CreatedAt, now), k.Scopes, k.Heads, k.Regions, limit(k.RequestsPerMinute), limit(k.TokensPerMinute), max(k.Weight, 1), k.CreatedBy)
	}
	return t
}

// limit is a limit of a key: "-" where it has none of its own and the setting counts.
func limit(n int64) string {
	switch n {
	case 0:
		return "-"
	case -1:
		return "none"
	}
	return strconv.FormatInt(n, 10)
}

func newKeysRevoke(r *remote) *cobra.Command {
	var yes bool
	cmd := command("revoke ID...", "End keys at once and for ever",
		`End keys at once and for ever. To revoke the last one opens the service on
loopback again; that is asked about first, or wants --yes.`, func(c *call) error {
			return r.withKeys(c, func(ctx context.Context, book keybook) error {
				keys, err := client.Collect(book.Keys(ctx), 0)
				if err != nil {
					return err
				}
				opens := noneLeft(keys, c.args)
				if opens && !yes {
					if err := c.confirm("no key would be left, and " + openService); err != nil {
						return err
					}
				}
				err = each(c, "key", c.args, func(id string) error {
					if err := book.RevokeKey(ctx, id); err != nil {
						return err
					}
					return c.say("key %s is revoked\n", id)
				})
				if err == nil && opens {
					c.note("no key is left, and %s\n", openService)
				}
				return err
			})
		})
	cmd.Flags().BoolVar(&yes, "yes", false, "revoke the last key without a question")
	return cmd
}

const openService = "without one every client on loopback may do everything (unless oidc.issuer or access.certificates say who may), and others nothing"

// noneLeft reports whether there are keys that were not revoked, and none of
// them is left without those with the ids.
func noneLeft(keys []api.Key, ids []string) bool {
	before := 0
	for i := range keys {
		if keys[i].RevokedAt != nil {
			continue
		}
		if before++; !slices.Contains(ids, keys[i].ID) {
			return false
		}
	}
	return before > 0
}
