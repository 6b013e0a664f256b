package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// AsOwner runs f as the owner of the first existing directory, if this process
// is root and the owner is not. So files belong to the user of the service,
// whose links cannot redirect root.
func AsOwner(f func() error, dirs ...string) error {
	if os.Geteuid() != 0 {
		return f()
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || owner.Uid == 0 {
			break
		}
		back, err := become(int(owner.Uid), int(owner.Gid))
		if err != nil {
			return fmt.Errorf("become user %d, who owns %s: %w; run this as that user, as with runuser -u", owner.Uid, dir, err)
		}
		err = f()
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("as user %d, who owns %s: %w", owner.Uid, dir, err)
		}
		return errors.Join(err, back())
	}
	return f()
}

// become changes the effective user and groups of the process until back is
// called. gid replaces the groups of a user without a name.
func become(uid, gid int) (back func() error, err error) {
	before, err := os.Getgroups()
	if err != nil {
		return nil, err
	}
	own := os.Getegid()
	back = func() error {
		return errors.Join(syscall.Setreuid(-1, 0), syscall.Setregid(-1, own), syscall.Setgroups(before))
	}
	groups := []int{gid}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		gid, groups = groupsOf(u, gid)
	}
	err = syscall.Setgroups(groups)
	if err == nil {
		err = syscall.Setregid(-1, gid)
	}
	if err == nil {
		err = syscall.Setreuid(-1, uid)
	}
	if err != nil {
		return nil, errors.Join(err, back())
	}
	return back, nil
}

func groupsOf(u *user.User, gid int) (primary int, all []int) {
	if n, err := strconv.Atoi(u.Gid); err == nil {
		gid = n
	}
	all = []int{gid}
	names, _ := u.GroupIds() // without them the primary one remains
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return gid, all
}
