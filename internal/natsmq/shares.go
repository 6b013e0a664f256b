package natsmq

// shares divides a bounded quantity among accounts: each may hold no more than
// is left for all others. One alone gets half, two get a third each, and a new
// one always finds room. It is not safe for concurrent use.
type shares[N int | int64] struct {
	total N
	used  N
	of    map[string]N
}

func newShares[N int | int64](total N) shares[N] {
	return shares[N]{total: total, of: map[string]N{}}
}

// take takes n for an account, or nothing beyond its share.
func (s *shares[N]) take(account string, n N) bool {
	if s.of[account]+n > s.total-s.used-n {
		return false
	}
	s.add(account, n)
	return true
}

// add is take without a limit.
func (s *shares[N]) add(account string, n N) {
	s.of[account] += n
	s.used += n
}

func (s *shares[N]) give(account string, n N) {
	n = min(n, s.of[account])
	s.used -= n
	if s.of[account] -= n; s.of[account] == 0 {
		delete(s.of, account)
	}
}
