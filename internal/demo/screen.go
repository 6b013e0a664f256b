package demo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

type display struct {
	*traffic
	options *Options
	fleet   *heads
	seen    atomic.Pointer[routerView]
	regret  atomic.Pointer[regret]
	sent    time.Duration // that requests were sent, once it is over
}

var (
	titleStyle = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.BrightCyan)
	labelStyle = lipgloss.NewStyle().Foreground(lipgloss.BrightBlack)
	headStyle  = lipgloss.NewStyle().Bold(true)
	goodStyle  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	warnStyle  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	badStyle   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	barStyle   = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
)

// shareSeconds is the window of the shares: short enough to show a lost head,
// long enough to be steady.
const shareSeconds = 10

func (d *display) live(ctx context.Context, out *os.File) {
	s := &screen{ctx: ctx, display: d, width: 100, height: 30}
	s.refresh(time.Now())
	p := tea.NewProgram(s, tea.WithOutput(out), tea.WithoutSignalHandler())
	quit := context.AfterFunc(ctx, p.Quit)
	defer quit()
	if _, err := p.Run(); err != nil && ctx.Err() == nil {
		fmt.Fprintf(out, "The live screen does not work on this terminal (%v); one line per second instead.\n", err)
		d.lines(ctx, out)
	}
}

// screen is the bubbletea program: it takes and draws a picture once a second.
type screen struct {
	*display
	ctx           context.Context // of live, which the program does not outlive
	width, height int
	now           time.Time
	picture       *picture
	units         []unitView
	notes         []note
	inFlight      int
	history       []map[string]headStats // of the last shareSeconds, the oldest first
}

type tickMsg time.Time

func tick() tea.Cmd {
	return tea.Every(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) })
}

// Init implements [tea.Model].
func (s *screen) Init() tea.Cmd { return tick() }

// Update implements [tea.Model].
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tickMsg:
		s.refresh(time.Now())
		return s, tick()
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "ctrl+c", "esc":
			return s, tea.Quit
		case "k":
			s.fleet.kill()
		case "x":
			s.fleet.arm()
		case "b":
			s.fleet.damage()
		case "s":
			s.fleet.revive(s.ctx, "")
		case "d":
			s.fleet.drain(s.ctx)
		default:
			return s, nil
		}
		s.units, s.notes = s.fleet.view()
	}
	return s, nil
}

func (s *screen) refresh(now time.Time) {
	s.now = now
	s.picture = s.stats.picture(now)
	s.units, s.notes = s.fleet.view()
	s.inFlight = len(s.slots)
	s.history = append(s.history, s.picture.heads)
	if len(s.history) > shareSeconds+1 {
		s.history = s.history[1:]
	}
}

// View implements [tea.Model].
func (s *screen) View() tea.View {
	v := tea.NewView(s.draw())
	v.AltScreen = true
	v.WindowTitle = "headway demo"
	return v
}

// draw lays out the screen. What does not fit is left out from the middle.
func (s *screen) draw() string {
	top := s.heading()
	bottom := []string{"", labelStyle.Render("k kill a head   x kill yours   b break one   s start one   d drain one   q quit")}
	room := s.height - len(top) - len(bottom)
	notes := s.news(min(4, room/4))
	table := s.table(room - len(notes))
	lines := append(top, table...)
	lines = append(lines, notes...)
	for len(lines) < s.height-len(bottom) {
		lines = append(lines, "")
	}
	lines = append(lines, bottom...)
	for i, l := range lines {
		lines[i] = lipgloss.NewStyle().MaxWidth(s.width).Render(l)
	}
	return strings.Join(lines[:min(len(lines), s.height)], "\n")
}

func (s *screen) heading() []string {
	p, t := s.picture, &s.picture.all
	field := func(name, value string) string { return labelStyle.Render(fmt.Sprintf("%-13s", name)) + value }
	failed := listed(p.fails, t.requests)
	if failed == "" {
		failed = goodStyle.Render("none")
	} else {
		failed = badStyle.Render(failed)
	}
	firstToken := quantiles(&p.ttft)
	if s.options.Speed != 1 && p.ttft.total > 0 {
		firstToken += labelStyle.Render(fmt.Sprintf("   ×%s on a real head", number(s.options.Speed)))
	}
	lines := []string{
		titleStyle.Render("Headway demo") + "  " + s.options.Server + labelStyle.Render("  "+clock(p.elapsed)),
		"",
		field("Requests", fmt.Sprintf("%5.0f/s  ", p.rate)) + barStyle.Render(sparkline(p.perSecond)) +
			labelStyle.Render(fmt.Sprintf("  %s in all", grouped(t.requests))),
		field("Overhead", quantiles(&p.overhead)+labelStyle.Render(fmt.Sprintf("   of Headway, last %d s", quantileSeconds))),
		field("First token", firstToken),
		field("Answers", fmt.Sprintf("%s whole, %d in flight, %s after a failed head",
			grouped(p.ends.ok), s.inFlight, grouped(p.ends.moved))),
		field("Placement", fmt.Sprintf("%s of prompt tokens cached, mean regret %s", percent(p.ends.cached, p.ends.input), s.regret.Load())),
		field("Failures", failed),
		field("Strategies", listed(p.strategies, t.requests)),
	}
	if s.options.Faults {
		lines = append(lines, field("Faults", s.faults()))
	}
	return append(lines, "")
}

// faults is a command that makes a head go wrong.
func (s *screen) faults() string {
	for _, u := range s.units {
		if u.state == stateUp {
			return fmt.Sprintf("%s   %s", breaking(u.url), labelStyle.Render(u.id))
		}
	}
	return "no head is up"
}

func quantiles(s *samples) string {
	p50, p95, p99 := s.quantiles()
	return fmt.Sprintf("p50 %8s   p95 %8s   p99 %8s", span(p50), span(p95), span(p99))
}

func clock(d time.Duration) string {
	n := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", n/3600, n/60%60, n%60)
}

func sparkline(counts []uint64) string {
	const width = 30
	levels := []rune("▁▂▃▄▅▆▇█")
	counts = counts[max(0, len(counts)-width):]
	most := uint64(1)
	for _, n := range counts {
		most = max(most, n)
	}
	line := make([]rune, 0, width)
	for range width - len(counts) {
		line = append(line, ' ')
	}
	for _, n := range counts {
		line = append(line, levels[n*uint64(len(levels)-1)/most])
	}
	return string(line)
}

const (
	tableWidth = 76
	minBar     = 4
	maxBar     = 24
)

func (s *screen) table(room int) []string {
	share, most := s.shares()
	width := min(max(s.width-tableWidth, minBar), maxBar)
	lines := []string{headStyle.Render(fmt.Sprintf("%-9s %-12s %-8s %-*s  SHARE RUN+WAIT   KV BUSY  %-8s %s",
		"HEAD", "MODEL", "REGION", width, "", "STATE", "SERVICE"))}
	seen := s.seen.Load()
	for i, u := range s.units {
		if len(lines) >= room-2 && i < len(s.units)-1 {
			lines = append(lines, labelStyle.Render(fmt.Sprintf("… and more heads: %d", len(s.units)-i)))
			break
		}
		load := fmt.Sprintf("%8s %4s %4s", "–", "–", "–")
		if u.state != stateDown {
			load = fmt.Sprintf("%8s %3.0f%% %3.0f%%", fmt.Sprintf("%d+%d", u.load.Running, u.load.Waiting),
				100*u.load.KVUsage, 100*u.load.Utilization)
		}
		lines = append(lines, fmt.Sprintf("%-9s %-12s %-8s %s %5.1f%% %s  %s %s",
			cut(u.id, 9), cut(u.model, 12), cut(u.region, 8), barStyle.Render(bar(share[u.id], most, width)),
			100*share[u.id], load, stateStyle(u.state).Render(fmt.Sprintf("%-8s", u.state)), seen.word(u.id)))
	}
	return append(lines, "")
}

// shares returns each head's part of the requests of the last shareSeconds,
// and the largest.
func (s *screen) shares() (share map[string]float64, most float64) {
	oldest, newest := s.history[0], s.history[len(s.history)-1]
	var sum float64
	share = make(map[string]float64, len(newest))
	for id, h := range newest {
		share[id] = float64(h.requests - oldest[id].requests)
		sum += share[id]
	}
	for id := range share {
		share[id] /= max(sum, 1)
		most = max(most, share[id])
	}
	return share, most
}

func bar(part, most float64, width int) string {
	if most <= 0 {
		return strings.Repeat(" ", width)
	}
	eighths := int(part/most*float64(width)*8 + 0.5)
	b := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		b += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return b + strings.Repeat(" ", width-len([]rune(b)))
}

func stateStyle(s state) lipgloss.Style {
	switch s {
	case stateUp:
		return goodStyle
	case stateDraining:
		return warnStyle
	}
	return badStyle
}

func cut(text string, width int) string {
	r := []rune(text)
	if len(r) <= width {
		return text
	}
	return string(r[:width-1]) + "…"
}

func (s *screen) news(most int) []string {
	var lines []string
	for _, n := range s.notes[max(0, len(s.notes)-max(most, 0)):] {
		lines = append(lines, labelStyle.Render(n.at.Format("15:04:05"))+"  "+n.text)
	}
	return lines
}
