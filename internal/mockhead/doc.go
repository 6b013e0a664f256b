// Package mockhead is a simulated inference server: an OpenAI-compatible HTTP
// head whose time to first token, batching, KV cache and metrics follow from
// the work it really gets.
//
// [Head] runs an [engine.Engine] in real time, scaled by a speed, behind a
// listener. [Head.NewAgent] registers it with Headway and reports the engine's
// load.
package mockhead
