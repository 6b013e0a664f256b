package doctor

import "syscall"

// clock asks the kernel whether the clock is synchronised.
func (f *findings) clock() {
	const unsynchronised = 0x40 // STA_UNSYNC of adjtimex(2)
	var t syscall.Timex
	switch _, err := syscall.Adjtimex(&t); {
	case err != nil:
		f.warn("clock", err.Error(), "")
	case t.Status&unsynchronised != 0:
		f.warn("clock", "nothing keeps the clock of this machine right", "run chrony or systemd-timesyncd: times in the audit trail and the ends of keys depend on it")
	default:
		f.fine("clock", "it is kept right")
	}
}
