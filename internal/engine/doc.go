// Package engine models an inference engine with continuous batching, chunked
// prefill and a prefix cache. It has no clock, no randomness and no I/O, so that
// real heads and simulations run the same model.
package engine
