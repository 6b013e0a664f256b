package registry

// numbers gives heads the least numbers that no other head has, for tables by head.
type numbers struct {
	next int
	free []int
}

func (n *numbers) take() int {
	if last := len(n.free) - 1; last >= 0 {
		number := n.free[last]
		n.free = n.free[:last]
		return number
	}
	n.next++
	return n.next - 1
}

func (n *numbers) give(number int) { n.free = append(n.free, number) }
