package live

// UsualDecision and ReadMessage are the two readers of envelopes.
func UsualDecision(b []byte) (id, data []byte, ok bool) { return usualDecision(b) }

// ReadMessage reads with care.
func ReadMessage(b []byte) (id, kind string, data []byte, err error) {
	m, err := readMessage(b)
	return string(m.id), m.kind, m.data, err
}
