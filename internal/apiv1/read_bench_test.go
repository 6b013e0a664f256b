package apiv1

import (
	"testing"

	"headway/internal/strict"
)

// BenchmarkReadReport is the reading of a usual status report.
func BenchmarkReadReport(b *testing.B) {
	body := []byte(`{"epoch":7,"sequence":123456,"status":"active","load":{"in_flight":12,"queued":3,"kv_cache_usage":0.42,"tokens_per_second":1834.5}}`)
	b.ReportAllocs()
	for b.Loop() {
		var in report
		if faults, err := strict.ReadObject(body, MaxFaults, in.field); err != nil || len(faults) > 0 {
			b.Fatal(faults, err)
		}
	}
}

// BenchmarkReadDecision is the reading of a usual decision request, by the scan
// and by the reader of all others.
func BenchmarkReadDecision(b *testing.B) {
	body := []byte(`{"model_type":"llama-3.1-8b","region":"eu-west","session_key":"conversation-5f3a9c","input_tokens":1834}`)
	var d work
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !d.scan(body) {
				b.Fatal("it is not usual")
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if faults, err := d.decode(body); err != nil || len(faults) > 0 {
				b.Fatal(faults, err)
			}
		}
	})
}
