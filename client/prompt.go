package client

import (
	"fmt"

	"headway/api"
	"headway/internal/openai"
	"headway/internal/prefix"
)

// HashText has a request for a decision say which prompt it is for without a word of it:
// by hashes of its blocks, and its length. The text is one that the head's template does
// not change, such as the prompt of completions.
func HashText(r *api.DecisionRequest, text string) {
	var c prefix.Chain
	_, _ = c.Write([]byte(text))
	hashed(r, &c)
}

// HashBody is HashText of the body of a request, in JSON, as it is sent to the head: of
// chat/completions, completions, responses or messages. The hashes are those that the data
// plane makes of it. It fails for what the data plane refuses.
func HashBody(r *api.DecisionRequest, body []byte) error {
	var request openai.Request
	if wrong := openai.Scan(body, &request); wrong != nil {
		return fmt.Errorf("hash the prompt: %w", wrong)
	}
	var c prefix.Chain
	request.WriteText(body, &c)
	hashed(r, &c)
	return nil
}

// hashed puts hashes in place of the prompt.
func hashed(r *api.DecisionRequest, c *prefix.Chain) {
	const bytesPerToken = 4 // as the router estimates them
	r.Prompt, r.PrefixHashes = "", make([]string, len(c.Hashes))
	for i, h := range c.Hashes {
		r.PrefixHashes[i] = fmt.Sprintf("%016x", h)
	}
	if r.InputTokens == nil {
		r.InputTokens = new((c.Bytes() + bytesPerToken - 1) / bytesPerToken)
	}
}
