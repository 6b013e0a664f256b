package cli

import "syscall"

// clockFinding asks the kernel whether somebody keeps the clock right.
func clockFinding() finding {
	const unsynchronised = 0x40 // STA_UNSYNC of adjtimex(2)
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return finding{"clock", warning, err.Error(), ""}
	}
	if t.Status&unsynchronised != 0 {
		return finding{"clock", warning, "nothing keeps the clock of this machine right", "run chrony or systemd-timesyncd: times in the audit trail and the ends of keys depend on it"}
	}
	return finding{"clock", fine, "it is kept right", ""}
}
