import assert from "node:assert/strict";
import test from "node:test";
import { readFileSync } from "node:fs";
import { lately, sentence, standings } from "../src/alerts";
import type { Rule } from "../src/api";
import { asksNow, fill, opening, overview, scrapeInterval, stack, type Panel } from "../src/dashboard";
import { clock, duration, format, ticks } from "../src/format";

const panel = (type: string, calc?: string): Panel =>
  ({ id: 1, type, title: "", gridPos: { x: 0, y: 0, w: 1, h: 1 }, options: calc ? { reduceOptions: { calcs: [calc] } } : {} });
const target = { expr: "up", refId: "A" };

test("a number on the page is of now, and not the last of the range", () => {
  for (const type of ["stat", "gauge", "bargauge", "table"]) {
    assert.equal(asksNow(panel(type), target), true, type);
    assert.equal(asksNow(panel(type, "lastNotNull"), target), true, type);
    assert.equal(asksNow(panel(type, "max"), { ...target, instant: true }), true, type);
  }
  assert.equal(asksNow(panel("stat", "max"), target), false);
  assert.equal(asksNow(panel("timeseries"), target), false);
  assert.equal(asksNow(panel("heatmap"), target), false);
});

test("the interval is the service's", () => {
  assert.equal(scrapeInterval("global:\n  scrape_interval: 1m30s\n  evaluation_interval: 15s\n"), 90);
  assert.equal(scrapeInterval("global:\n  scrape_interval: 1m\n"), 60);
  assert.equal(scrapeInterval("nothing of the kind"), 15);
  // A rate needs two samples: with one a minute it reaches over four of them.
  assert.equal(fill("rate(x[$__rate_interval])", {}, {}, 60, 3600, 60), "rate(x[240s])");
});

test("durations", () => {
  for (const [text, seconds] of [["5m", 300], ["1h30m", 5400], ["500ms", .5], ["1d", 86400], ["off", 0], ["", 0], ["5", 0]] as [string, number][]) {
    assert.equal(duration(text), seconds, text);
  }
});

test("time axes have round marks, few enough", () => {
  const noon = Date.UTC(2026, 0, 1, 12) / 1000;
  for (const range of [60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400]) {
    const { times, every } = ticks(noon + 7, noon + 7 + range, 5);
    assert.ok(times.length >= 2 && times.length <= 6, `${range}: ${times.length} marks`);
    for (const t of times) assert.ok(t % every === 0 && t >= noon + 7 && t <= noon + 7 + range, `${range}: ${t}`);
  }
  assert.deepEqual(ticks(noon, noon + 300, 5).times.map((t) => clock(t, 60)), ["12:00", "12:01", "12:02", "12:03", "12:04", "12:05"]);
});

test("the watchdog that fires is alive, and is no alert", () => {
  const rule = (name: string, severity: string, state: string): Rule => ({ name, type: "alerting", state, health: "ok", query: "", labels: { severity } });
  const of = (...rules: Rule[]) => standings([{ name: "g", rules }]).map((s) => `${s.rule.name} ${s.state}`);
  assert.deepEqual(of(rule("Watchdog", "none", "firing"), rule("A", "warning", "inactive"), rule("B", "critical", "firing"), rule("C", "warning", "pending")),
    ["B firing", "C pending", "Watchdog alive", "A inactive"]);
  assert.deepEqual(of(rule("A", "warning", "firing"), rule("Watchdog", "none", "inactive")), ["Watchdog silent", "A firing"]);
});

test("alerts that fired lately come first among the quiet ones", () => {
  const rule = (name: string, state: string): Rule => ({ name, type: "alerting", state, health: "ok", query: "", labels: { severity: "warning" } });
  const fired = lately.read([{ metric: { alertname: "C" }, value: [9, "5"] }, { metric: { alertname: "B" }, value: [9, "7"] }]);
  assert.deepEqual(standings([{ name: "g", rules: [rule("A", "inactive"), rule("C", "inactive"), rule("B", "inactive"), rule("D", "firing")] }], fired).map((s) => s.rule.name + (s.fired ?? "")),
    ["D", "B7", "C5", "A"]);
});

test("a quiet alert says what it is about", () => {
  const rule = (summary?: string): Rule => ({ name: "a", type: "alerting", health: "ok", query: "", labels: {}, annotations: summary === undefined ? {} : { summary } });
  assert.equal(sentence(rule("High latency of {{ $labels.endpoint }}")), "High latency of …");
  assert.equal(sentence(rule("Low active heads")), "Low active heads");
  assert.equal(sentence(rule()), "");
});

test("the overview has the data plane and the basic panels, two beside each other", () => {
  const board = (name: string) => JSON.parse(readFileSync(`../../../grafana/dashboards/${name}.json`, "utf8"));
  const basic = board("routing-service"), o = overview(basic, board("routing-service-enhanced"));
  const titles = o.panels.map((p) => p.title), graphs = o.panels.filter((p) => p.type !== "stat");
  for (const title of ["Calls of heads", "Why calls of heads fail", "Time to first token", "Tokens", "Requests that wait", ...basic.panels.map((p: Panel) => p.title)]) {
    assert.equal(titles.filter((t) => t === title).length, 1, title);
  }
  assert.equal(o.panels.length - graphs.length, 6);
  assert.equal(graphs.length % 2, 0);
  graphs.forEach((p, i) => assert.deepEqual([p.gridPos.x, p.gridPos.w], [i % 2 * 12, 12]));
});

test("numbers", () => {
  assert.equal(format(.15, "mps"), "0.15 msg/s");
  assert.equal(format(0, "percentunit"), "0 %");
});

test("a series that is 0 has no line on top of the others", () => {
  const { areas, lines } = stack([[10, 10, 10, 10, 10], [null, null, null, 2, 0], [0, 0, 0, 0, 0]]);
  assert.deepEqual(areas, [[10, 10, 10, 10, 10], [10, 10, 10, 12, 10], [10, 10, 10, 12, 10]]);
  assert.deepEqual(lines, [[10, 10, 10, 10, 10], [null, null, 10, 12, 10], [null, null, null, null, null]]);
  // Where nobody has a value there is nothing to fill.
  assert.deepEqual(stack([[1, null, 1], [null, null, 2]]).areas, [[1, null, 1], [1, null, 3]]);
  assert.deepEqual(stack([]), { areas: [], lines: [] });
});

test("the page opens with what exists", () => {
  for (const [age, shown] of [[undefined, 60], [0, 60], [61, 120], [601, 660], [3599, 3600], [3600, 3600], [86400, 3600], [NaN, 60]] as [number | undefined, number][]) {
    assert.equal(opening(age), shown, String(age));
  }
});
