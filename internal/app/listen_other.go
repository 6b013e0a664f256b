//go:build !linux

package app

import "syscall"

// noticeVanished keeps the kernel's defaults.
func noticeVanished(_, _ string, _ syscall.RawConn) error { return nil }
