package registry

// SpendEpochs leaves n epochs of the block that was set aside last.
func (r *Registry) SpendEpochs(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nextEpoch += r.epochsLeft - n
	r.epochsLeft = n
}

// KeptRecordings is how many removed heads are remembered for the audit trail.
func (r *Registry) KeptRecordings() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.auditLimits)
}
