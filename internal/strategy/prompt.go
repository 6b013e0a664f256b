package strategy

import (
	"math"
	"strings"

	"headway/internal/fleet"
	"headway/internal/prefix"
)

// RecallPrompt recalls what the heads have of the prompt, and how fast they are, once
// for a decision.
func (in *Input) RecallPrompt() {
	if !in.Recalled.Prompt && in.memory != nil {
		in.memory.Recall(in, RecallPrompt)
	}
}

// mostTokens is more than any head holds. A request that names more counts with as many,
// so that one wrong number does not weigh on those that follow.
const mostTokens = 1 << 21

// Tokens are those of the prompt: as the request says, else as is usual in the pool.
func (in *Input) Tokens() float64 {
	if in.Request.InputTokens > 0 {
		return float64(min(in.Request.InputTokens, mostTokens))
	}
	return in.Recalled.Pace.usual()
}

// Uncached are the tokens of the prompt that the head must compute, of so many, at
// least one. All are where what heads report of their caches contradicts what is
// known of them.
func (in *Input) Uncached(h *fleet.Head, tokens float64) float64 {
	if !in.Recalled.Pace.Trusted() {
		return tokens
	}
	return in.unknown(h, tokens)
}

// unknown are the tokens of the prompt that the head is not known to have cached.
func (in *Input) unknown(h *fleet.Head, tokens float64) float64 {
	if n := in.found.Blocks(h.Number, h.Instance); in.Recalled.Prompt && n > 0 {
		return max(tokens-in.covered(n, tokens), 1)
	}
	return tokens
}

// byConversation reports whether nothing is known of the prompt but what it continues.
// The conversation stands for a block then, of which a head that has it has the turns
// before, as long as each other.
func (in *Input) byConversation() bool {
	return len(in.Request.PrefixHashes) == 0 && strings.TrimSpace(in.Request.SessionID) != ""
}

// covered is how many of the prompt's tokens its first n blocks have that engines take
// from their caches. They compute the block with the last token again, which has to be
// computed to begin the answer.
func (in *Input) covered(n int, tokens float64) float64 {
	if in.byConversation() {
		return tokens * (1 - 1/float64(max(in.Request.Turn, 2)))
	}
	if each := float64(in.Request.BlockTokens); each > 0 {
		return each * min(float64(n), math.Ceil(tokens/each)-1)
	}
	text := in.Request.PromptBytes
	if text == 0 {
		text = length(len(in.blocks), tokens)
	}
	if prefix.Covered(n) >= text {
		n--
	}
	return tokens * float64(prefix.Covered(n)) / float64(text)
}

// length is about how many bytes a prompt has of which only the hashes of its blocks are
// known: four for each token, as callers count them who have no tokenizer, unless its
// blocks say that there are more, or fewer.
func length(blocks int, tokens float64) int64 {
	return min(max(int64(4*tokens), prefix.Covered(blocks)), prefix.Covered(blocks+1)-1)
}

func whole(v float64) int32 { return int32(min(v, math.MaxInt32)) }

// Work is what the request brings to the head, as far as is known.
func (in *Input) Work(h *fleet.Head) fleet.Work {
	if in.Request.InputTokens == 0 && !in.Recalled.Prompt {
		return fleet.Work{}
	}
	tokens := in.Tokens()
	return fleet.Work{
		Tokens: whole(tokens), New: whole(in.unknown(h, tokens)),
		Pending: whole(in.Recalled.Pace.Weigh(tokens, in.Uncached(h, tokens))),
	}
}

// Seen is what is known of a head for the request.
type Seen struct {
	Head      *fleet.Head
	Predicted float64 // time to the first token in ms, NaN: too little is known of the pool
	Ahead     float64 // weight of the prompts before this one, in tokens
	Uncached  float64 // tokens of the prompt that it is not known to have cached
	Requests  float64 // in flight there, of all routers
	KV        float64 // the part of its KV cache that is used with this prompt
	Slower    float64 // how many times as long as its pool it takes
}

// See looks at a head.
func (in *Input) See(h *fleet.Head) Seen {
	pace, tokens := in.Recalled.Pace, in.Tokens()
	b := pace.burden(h, 0, tokens, pace.usual(), in.clock)
	s := Seen{
		Head: h, Ahead: b.Ahead + b.Waiting, Uncached: in.unknown(h, tokens), Requests: b.Requests + max(b.Beyond, 0),
		KV: max(b.KV, 0), Slower: pace.Slower(h),
	}
	s.Predicted = pace.predict(h, s.Ahead+pace.Weigh(tokens, in.Uncached(h, tokens)), float64(h.Live.Tokens())+tokens)
	return s
}

// Predict estimates the time to the first token at the head in ms, where the
// request is placed with that work; NaN while too little is known of the pool.
func (in *Input) Predict(h *fleet.Head, w fleet.Work) float64 {
	pace := in.Recalled.Pace
	if pace == nil {
		return math.NaN()
	}
	b := pace.burden(h, float64(w.Pending), 0, pace.usual(), in.clock)
	return pace.predict(h, max(b.Ahead+b.Waiting, float64(w.Pending)), float64(h.Live.Tokens()))
}

// Blocks are the keys of the blocks of the request's prompt.
func (in *Input) Blocks() []uint64 {
	if !in.Recalled.Prompt || in.byConversation() {
		return nil
	}
	return in.blocks
}
