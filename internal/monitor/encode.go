package monitor

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// encoded is a whole answer of a query. It is written by hand: an hour of a
// dashboard is some ten thousand points, and by reflection they take as long as
// a third of finding them.
type encoded []byte

const answerBegin, answerEnd = `{"status":"success","data":`, "}\n"

// MarshalJSON gives the data alone, for an answer with warnings beside it.
func (e encoded) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(bytes.TrimPrefix(e, []byte(answerBegin)), []byte(answerEnd)), nil
}

// maxAnswer bounds an answer: what is longer nobody reads. A query may hold some
// million points, and each may take 300 bytes.
const maxAnswer = 64 << 20

// appendAnswer writes a value, unless it is too long.
func appendAnswer(b []byte, v parser.Value) (encoded, error) {
	b = append(b, answerBegin...)
	b = append(b, `{"resultType":"`...)
	b = append(b, v.Type()...)
	b = append(b, `","result":`...)
	switch v := v.(type) {
	case promql.Scalar:
		b = appendPoint(b, v.T, v.V)
	case promql.String:
		b = append(appendSeconds(append(b, '['), v.T), ',')
		b = append(appendString(b, v.V), ']')
	case promql.Vector:
		b = append(b, '[')
		for i := range v {
			b = appendMetric(b, i, v[i].Metric)
			b = append(b, `,"value":`...)
			b = append(appendPoint(b, v[i].T, v[i].F), '}')
			if len(b) > maxAnswer {
				return nil, errLongAnswer
			}
		}
		b = append(b, ']')
	case promql.Matrix:
		b = append(b, '[')
		for i := range v {
			b = appendMetric(b, i, v[i].Metric)
			b = append(b, `,"values":[`...)
			for j, p := range v[i].Floats {
				if j > 0 {
					b = append(b, ',')
				}
				b = appendPoint(b, p.T, p.F)
				if len(b) > maxAnswer {
					return nil, errLongAnswer
				}
			}
			b = append(b, "]}"...)
		}
		b = append(b, ']')
	}
	b = append(b, '}')
	return append(b, answerEnd...), nil
}

// appendMetric begins the i-th series of a list.
func appendMetric(b []byte, i int, metric labels.Labels) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"metric":{`...)
	first := true
	metric.Range(func(l labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, l.Name), ':')
		b = appendString(b, l.Value)
	})
	return append(b, '}')
}

// appendPoint writes a sample as Prometheus does: [seconds, "value"].
func appendPoint(b []byte, t int64, v float64) []byte {
	b = appendSeconds(append(b, '['), t)
	b = append(b, `,"`...)
	b = strconv.AppendFloat(b, v, 'f', -1, 64)
	return append(b, `"]`...)
}

// appendSeconds writes milliseconds as seconds.
func appendSeconds(b []byte, ms int64) []byte {
	if ms < 0 {
		return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms == 0 {
		return b
	}
	b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string can be
			return append(b, quoted...)
		}
	}
	b = append(append(b, '"'), s...)
	return append(b, '"')
}
