package openai

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// What a prose is used again with has nothing of the prompt before.
func TestNothingOfAPromptIsKept(t *testing.T) {
	const marker = "quicksilver"
	p := &prose{memory: make([]byte, 0, proseMemory), w: io.Discard}
	long := strings.Repeat(marker+`\n`, 100)
	p.messages([]byte(`[{"role":"user","content":"` + long + `"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"` + marker + `\":\"` + strings.Repeat(marker, 100) + `\"}"}}]}]`))
	p.call([]byte(`"f"`), []byte(`"{}"`)) // a shorter one leaves what is behind it
	if memory, decoded := p.memory[:cap(p.memory)], p.decoded[:cap(p.decoded)]; !bytes.Contains(memory, []byte(marker)) || !bytes.Contains(decoded, []byte(marker)) {
		t.Fatal("nothing was there to be forgotten")
	}
	p.forget()
	if memory := p.memory[:cap(p.memory)]; bytes.Contains(memory, []byte("silver")) {
		t.Errorf("the memory has %q", bytes.Trim(memory, "\x00"))
	}
	if decoded := p.decoded[:cap(p.decoded)]; bytes.Contains(decoded, []byte("silver")) {
		t.Errorf("the arguments %q are kept", bytes.Trim(decoded, "\x00"))
	}
	for _, m := range p.members[:cap(p.members)] {
		if m.name != nil || m.value != nil {
			t.Errorf("the member %s is kept", m.name)
		}
	}
	if p.w != nil {
		t.Error("the writer is kept")
	}
}
