// Package mockhead is a simulated inference server: an OpenAI-compatible HTTP
// head whose time to first token, batching, KV cache and metrics follow from
// the work it really gets.
//
// [Engine] is the model: pure, deterministic and without a clock, so that it
// runs in virtual time as well. [Head] plays an engine in real time, scaled by
// a speed, behind a real listener. [Head.NewAgent] registers it with Headway and
// renews its lease with the engine's load.
package mockhead
