package monitor

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxAnswer bounds an answer. A query may hold some million points, and each may
// take 300 bytes.
const maxAnswer = 64 << 20

// boundedBuffer is a buffer that refuses more than an answer may have.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxAnswer {
		return 0, errLongAnswer
	}
	return b.Buffer.Write(p)
}

// encode writes the result of a query, unless it is too long.
func encode(v parser.Value) (jsontext.Value, error) {
	var b boundedBuffer
	err := json.MarshalWrite(&b, struct {
		ResultType parser.ValueType `json:"resultType"`
		Result     any              `json:"result"`
	}{v.Type(), v}, asPrometheus)
	return b.Bytes(), err
}

type instantSeries struct {
	Metric labels.Labels `json:"metric"`
	Value  promql.FPoint `json:"value"`
}

type rangeSeries struct {
	Metric labels.Labels   `json:"metric"`
	Values []promql.FPoint `json:"values"`
}

// asPrometheus writes a sample as [seconds, "value"], and replaces bytes that are
// no text.
var asPrometheus = json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true), json.WithMarshalers(json.JoinMarshalers(
	json.MarshalToFunc(func(e *jsontext.Encoder, p promql.FPoint) error {
		b := strconv.AppendFloat(append(e.AvailableBuffer(), '['), float64(p.T)/1000, 'f', -1, 64)
		b = strconv.AppendFloat(append(b, `,"`...), p.F, 'f', -1, 64)
		return e.WriteValue(append(b, `"]`...))
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, v promql.Scalar) error {
		return json.MarshalEncode(e, promql.FPoint{T: v.T, F: v.V})
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, s promql.Sample) error {
		return json.MarshalEncode(e, instantSeries{s.Metric, promql.FPoint{T: s.T, F: s.F}})
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, s promql.Series) error {
		return json.MarshalEncode(e, rangeSeries{s.Metric, s.Floats})
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, all labels.Labels) error {
		if err := e.WriteToken(jsontext.BeginObject); err != nil {
			return err
		}
		all.Range(func(l labels.Label) {
			_ = e.WriteToken(jsontext.String(l.Name)) // no two have one name
			_ = e.WriteToken(jsontext.String(l.Value))
		})
		return e.WriteToken(jsontext.EndObject)
	}),
)))
