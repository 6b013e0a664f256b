package sim

import (
	"errors"
	"math"
	"testing"
	"time"

	"headway/internal/workload"
)

func TestTheHighestRateIsFound(t *testing.T) {
	for _, limit := range []float64{0.004, 0.9, 7.3, 4000} {
		for _, guess := range []float64{1, 10} {
			runs := 0
			got, err := highest(guess, func(rate float64) (bool, error) { runs++; return rate <= limit, nil })
			if err != nil || got > limit || got < limit*(1-2*searchNear) || runs > 40 {
				if guess/1000 > limit {
					continue // too far off
				}
				t.Errorf("from %v to %v: %v, %v after %d runs", guess, limit, got, err, runs)
			}
		}
	}
	if got, err := highest(1, func(float64) (bool, error) { return false, nil }); got != 0 || err != nil {
		t.Errorf("where none is kept: %v, %v", got, err)
	}
	if got, _ := highest(1, func(float64) (bool, error) { return true, nil }); got < mostRate/2 {
		t.Errorf("where all are kept: %v", got)
	}
	if _, err := highest(1, func(float64) (bool, error) { return false, errRefused }); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
}

// Above the saturation rate the queue grows as long as requests come; below it does
// not.
func TestSaturationIsWhereTheQueueGrows(t *testing.T) {
	s := study(t, "round_robin")
	s.Traffic, s.Rates, s.Loads = traffic(t, "poisson:requests=1200,input=6000,output=20", 0), nil, []float64{0.7, 1.3}
	r := run(t, s)
	if r.SaturationRate == nil {
		t.Fatal("no saturation rate")
	}
	below, above := r.Results[0], r.Results[1]
	if *below.Load != 0.7 || math.Abs(below.Rate-0.7**r.SaturationRate) > 1e-9 {
		t.Errorf("load %v is %v a second, with saturation at %v", *below.Load, below.Rate, *r.SaturationRate)
	}
	if below.TTFT.Mean > 5000 || above.TTFT.Mean < 3*below.TTFT.Mean {
		t.Errorf("%.0f ms below and %.0f ms above %v requests/s", below.TTFT.Mean, above.TTFT.Mean, *r.SaturationRate)
	}
	setup, err := s.setup(&s.Contenders[0], nil, *r.SaturationRate, s.Seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Run(t.Context(), setup.Options)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Traffic.Play(setup.play)
	if err != nil {
		t.Fatal(err)
	}
	most, last := unloaded(again, &s.Profile)
	if part := share(m.answeredBy(last), most); part < kept || part > kept+0.03 {
		t.Errorf("at the saturation rate %.3f of what an unlimited fleet would have answered is", part)
	}
	s.Saturation = 2
	if r = run(t, s); *r.SaturationRate != 2 || r.Results[0].Rate != 1.4 {
		t.Errorf("with a saturation rate of 2 load 0.7 is %v", r.Results[0].Rate)
	}
}

func TestTheRateThatIsCarried(t *testing.T) {
	s := study(t, "round_robin", "adaptive")
	s.Traffic = traffic(t, workload.Sample, 300)
	s.Carried = true
	r := run(t, s)
	if len(r.Carried) != 2 || r.Carried[0].Strategy != "round_robin" || r.Carried[0].Rate <= 0 || r.Carried[1].Rate < 1.5*r.Carried[0].Rate {
		t.Errorf("%+v", r.Carried)
	}
	s = study(t, "round_robin")
	s.Traffic, s.Rates = traffic(t, workload.Sample, 300), []float64{r.Carried[0].Rate}
	if good := run(t, s).Results[0].Goodput; good < kept || good > kept+0.03 {
		t.Errorf("goodput %.3f at the rate that is carried", good)
	}
}

// An unlimited fleet answers each request as if it was alone, and those that follow
// come by its answers.
func TestUnloadedIsWhatAnUnlimitedFleetAnswers(t *testing.T) {
	p := profile(t, "qwen32b-h100x2")
	source, err := traffic(t, workload.Sample, 600).Play(workload.Play{Rate: 1000, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	answered, last := unloaded(source, &p)
	if last < 500*time.Millisecond || last > 700*time.Millisecond || answered > 50 {
		t.Errorf("%d answered by %v", answered, last)
	}
	source, _ = traffic(t, "agents:sessions=20,turns=5", 0).Play(workload.Play{Rate: 0.1, Seed: 1})
	if answered, _ = unloaded(source, &p); answered < 40 || answered > 200 {
		t.Errorf("%d requests of 20 sessions", answered)
	}
}
