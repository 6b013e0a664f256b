package natsmq

// shares divides a bounded quantity among accounts without a fixed number of
// them: an account may hold no more than is left for all others. So one alone
// gets half, two get a third each, and one that comes later always finds room,
// however much those before it took. It is not safe for concurrent use.
type shares[N int | int64] struct {
	total N
	used  N
	of    map[string]N
}

func newShares[N int | int64](total N) shares[N] {
	return shares[N]{total: total, of: map[string]N{}}
}

// take takes n for an account, or nothing if that would be more than its share.
func (s *shares[N]) take(account string, n N) bool {
	if s.of[account]+n > s.total-s.used-n {
		return false
	}
	s.add(account, n)
	return true
}

// add is take without a limit, for what is there already.
func (s *shares[N]) add(account string, n N) {
	s.of[account] += n
	s.used += n
}

// give gives back n that an account has taken.
func (s *shares[N]) give(account string, n N) {
	n = min(n, s.of[account])
	s.used -= n
	if s.of[account] -= n; s.of[account] == 0 {
		delete(s.of, account)
	}
}
