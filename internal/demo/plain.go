package demo

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"headway/internal/workload"
)

func introduce(w io.Writer, o *Options) {
	trace := workload.SampleName
	if o.Trace != "" {
		trace = o.Trace
	}
	speed := ""
	if o.Speed != 1 {
		speed = fmt.Sprintf(", at %s times their speed", number(o.Speed))
	}
	fmt.Fprintf(w, `Headway demo, mock heads: %d. They serve %s
in %s, and are real HTTP servers with the timing of
GPUs%s. They register at %s,
renew their leases and report their load. %s requests a second go to %s/v1
and follow the %s.
Ask and look around from another terminal:
  curl -s %s/v1/chat/completions -d '{"model":"%s","messages":[{"role":"user","content":"Hello"}]}'
  curl -s %s/api/v1/heads       the heads, with their health
  curl -s %s/api/v1/decisions   the latest decisions
  curl -s %s/metrics            what Prometheus scrapes
If the service asks for a key, add -H "Authorization: Bearer KEY".
`, o.Heads, strings.Join(o.Models, " and "), strings.Join(o.Regions, ", "), speed,
		o.Server, number(o.Rate), o.Server, trace, o.Server, o.Models[0], o.Server, o.Server, o.Server)
}

// lines prints one line per second, and the events of heads.
func (d *display) lines(ctx context.Context, w io.Writer) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	shown := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		units, notes := d.fleet.view()
		for _, n := range notes {
			if n.at.After(shown) {
				fmt.Fprintf(w, "%7s %s\n", "", n.text)
			}
		}
		shown = now
		fmt.Fprintln(w, line(d.stats.picture(now), units, len(d.slots), d.regret.Load()))
	}
}

func line(p *picture, units []unitView, inFlight int, r *regret) string {
	up := 0
	for _, u := range units {
		if u.state == stateUp {
			up++
		}
	}
	added50, added95, added99 := p.overhead.quantiles()
	token50, token95, _ := p.ttft.quantiles()
	return fmt.Sprintf("%5ds  %4.0f requests/s  overhead p50 %s p95 %s p99 %s  first token p50 %s p95 %s  "+
		"in flight %d  heads %d/%d  ok %s  failed %s  cached %s  regret %s",
		int(p.elapsed.Seconds()), p.rate, span(added50), span(added95), span(added99), span(token50), span(token95),
		inFlight, up, len(units), grouped(p.ends.ok), grouped(p.ends.failed), percent(p.ends.cached, p.ends.input), r)
}

// summarize prints the totals of the run; sent is how long traffic ran.
func summarize(w io.Writer, o *Options, p *picture, sent time.Duration, units []unitView, r *regret) {
	t := &p.all
	fmt.Fprintf(w, "\nSummary of %s\n\n", sent.Round(100*time.Millisecond))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { fmt.Fprintf(table, format+"\n", args...) }
	row("  requests\t%s\t%.1f a second", grouped(t.requests), float64(t.requests)/sent.Seconds())
	quantiles := func(name string, of *samples, speed float64) {
		p50, p95, p99 := of.quantiles()
		row("  %s\tp50 %s\tp95 %s\tp99 %s", name, atSpeed(p50, speed), atSpeed(p95, speed), atSpeed(p99, speed))
	}
	quantiles("overhead of Headway", &t.overhead, 1)
	quantiles("first token", &t.ttft, 1)
	if o.Speed != 1 {
		quantiles("… on a real head", &t.ttft, o.Speed)
	}
	row("  answered whole\t%s\t%s after a failed head", grouped(p.ends.ok), grouped(p.ends.moved))
	row("  failed\t%s\t%s", grouped(p.ends.failed), listed(p.fails, p.ends.failed))
	if p.ends.late > 0 {
		row("  sent late\t%s", grouped(p.ends.late))
	}
	row("  strategies\t%s", listed(p.strategies, t.requests))
	row("  prompt tokens\t%s\t%s from the prefix cache", grouped(p.ends.input), percent(p.ends.cached, p.ends.input))
	row("  mean regret\t%s\tby which the best head would have begun to answer sooner", r)
	row("  output tokens\t%s", grouped(p.ends.output))
	_ = table.Flush()

	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row("head\tmodel\tregion\trequests\tshare\tanswered\tfailed\treports\t")
	for i, u := range units {
		if i == maxTableRows {
			break
		}
		h := p.heads[u.id]
		row("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t", u.id, u.model, u.region, grouped(h.requests),
			percent(h.requests, t.requests), grouped(h.ok), grouped(h.failed), u.agent.Reports)
	}
	_ = table.Flush()
	if len(units) > maxTableRows {
		fmt.Fprintf(w, "… and more heads: %d\n", len(units)-maxTableRows)
	}
}

const maxTableRows = 64

// span formats a duration with three significant digits.
func span(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 2, 64) + " ms"
	case ms < 100:
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	case ms < 1000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(ms/1000, 'f', 2, 64) + " s"
}

// atSpeed scales a wall time to a head of speed 1.
func atSpeed(d time.Duration, speed float64) string { return span(time.Duration(float64(d) * speed)) }

func number(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }

func grouped(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + " %"
}

// listed names the most frequent, with their shares of the whole.
func listed(list []count, whole uint64) string {
	const most = 6
	var parts []string
	for _, c := range list[:min(len(list), most)] {
		parts = append(parts, fmt.Sprintf("%s %s (%s)", c.name, grouped(c.n), percent(c.n, whole)))
	}
	if len(list) > most {
		parts = append(parts, fmt.Sprintf("and %d more", len(list)-most))
	}
	return strings.Join(parts, ", ")
}
