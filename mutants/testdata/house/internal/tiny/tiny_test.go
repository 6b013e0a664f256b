package tiny

import "testing"

func TestBelow(t *testing.T) {
	if !Below(1, 2) {
		t.Error("1 is not below 2")
	}
}

func TestBorder(t *testing.T) {
	if Below(2, 2) {
		t.Error("2 is below 2")
	}
}

func TestCount(t *testing.T) {
	if got := Count(3); got != 3 {
		t.Errorf("counted to %d", got)
	}
}

func TestParts(t *testing.T) {
	t.Run("below", TestBelow)
	t.Run("border", TestBorder)
}

func TestSkipped(t *testing.T) { t.Skip("always") }

func TestFailing(t *testing.T) { t.Error("always") }
