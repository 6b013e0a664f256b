package monitor

import (
	"context"
	"time"

	engine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type nothing struct{}

func (nothing) Querier(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }

// promql uses what no monitor that evaluates PromQL over chunks can do without.
func promql(*Monitor) error {
	e := engine.NewEngine(engine.EngineOpts{Parser: parser.NewParser(parser.Options{})})
	now, err := e.NewInstantQuery(context.Background(), nothing{}, nil, "x", time.Now())
	if err != nil {
		return err
	}
	over, err := e.NewRangeQuery(context.Background(), nothing{}, nil, "x", time.Now(), time.Now(), time.Second)
	if err != nil {
		return err
	}
	c := chunkenc.NewXORChunk()
	a, err := c.Appender()
	if err != nil {
		return err
	}
	a.Append(0, 1, 1)
	println(now.Exec(context.Background()).String(), over.Exec(context.Background()).String(), c.NumSamples())
	return nil
}
