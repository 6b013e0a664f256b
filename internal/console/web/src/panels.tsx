import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { api, type Instant, type Sample, type Series } from "./api";
import { asksNow, configFor, fill, ink, legend, mapped, paint, stack, threshold, type FieldConfig, type Panel, type Target, type Values } from "./dashboard";
import { clock, format, ticks } from "./format";

export interface View { from: number; to: number; step: number; scrape: number; values: Values; all: Record<string, string>; tick: number; dark: boolean }

/** Line is one drawn series. */
interface Line { name: string; target: Target; metric: Record<string, string>; points: Map<number, number>; config: FieldConfig & { drawn?: string } }

const palette = ["#3a7bd5", "#dd7f1f", "#2f9e5b", "#8a5cd0", "#d64550", "#1a9fa3", "#b98a00", "#c2478f", "#5b7083", "#7a9a1f", "#4a5bd4", "#a0622d"];

type State<T> = { data?: T; error?: string };

/** useQuery loads what a panel shows, again at each tick, and keeps the last answer meanwhile. */
function useQuery<T>(view: View, key: string, load: (signal: AbortSignal) => Promise<T>): State<T> {
  const [state, set] = useState<State<T>>({});
  useEffect(() => {
    const stop = new AbortController();
    load(stop.signal).then((data) => set({ data }), (e) => { if (!stop.signal.aborted) set((s) => ({ data: s.data, error: String(e.message ?? e) })); });
    return () => stop.abort();
  }, [key, view.tick, view.from, view.to]);
  return state;
}

const shown = (p: Panel) => (p.targets ?? []).filter((t) => !t.hide && t.expr);
const expression = (t: Target, v: View) => fill(t.expr, v.values, v.all, v.step, v.to - v.from, v.scrape);
const keyOf = (p: Panel, v: View) => shown(p).map((t) => expression(t, v)).join("\n") + v.step;

function line(p: Panel, target: Target, metric: Record<string, string>, samples: Sample[]): Line {
  const name = legend(target, metric);
  return { name, target, metric, points: new Map(samples.map(([t, x]) => [t, Number(x)])), config: configFor(p, name, target.refId) };
}

/** ranges are a panel's series over the range. */
async function ranges(p: Panel, v: View, signal: AbortSignal): Promise<Line[]> {
  const answers = await Promise.all(shown(p).map(async (t) => [t, await api.range(expression(t, v), v.from, v.to, v.step, signal)] as [Target, Series[]]));
  return answers.flatMap(([target, list]) => list.map((s) => line(p, target, s.metric, s.values)));
}

/** values are a panel's series as it counts them: as they are now, or reduced over the range. */
async function values(p: Panel, v: View, signal: AbortSignal): Promise<Line[]> {
  const answers = await Promise.all(shown(p).map(async (t) => asksNow(p, t)
    ? (await api.instant(expression(t, v), signal)).map((s) => line(p, t, s.metric, [s.value]))
    : (await api.range(expression(t, v), v.from, v.to, v.step, signal)).map((s) => line(p, t, s.metric, s.values))));
  return answers.flat();
}

async function instants(p: Panel, v: View, signal: AbortSignal): Promise<[Target, Instant[]][]> {
  return Promise.all(shown(p).map(async (t) => [t, await api.instant(expression(t, v), signal)] as [Target, Instant[]]));
}

export function PanelFrame({ panel, view }: { panel: Panel; view: View }) {
  const Body = bodies[panel.type];
  return (
    <section class={"panel " + panel.type} aria-label={panel.title || panel.type}>
      {panel.title && <header>
        <h3>{panel.title}</h3>
        {panel.description && <details class="about"><summary aria-label={"About " + panel.title}>i</summary><p>{panel.description}</p></details>}
      </header>}
      {Body ? <Body panel={panel} view={view} /> : <Note>Panels of type {panel.type} are not drawn here.</Note>}
    </section>
  );
}

function Note({ children }: { children: ComponentChildren }) { return <p class="note">{children}</p>; }
function Failed({ error }: { error?: string }) { return error ? <p class="failed" role="alert">{error}</p> : null; }

function Text({ panel }: { panel: Panel }) {
  const content: string = panel.options?.content ?? "";
  return <div class="text">{content.split(/\n{2,}/).map((block) => {
    const title = /^#+\s+(.*)$/.exec(block);
    return title ? <h4>{inline(title[1])}</h4> : <p>{inline(block)}</p>;
  })}</div>;
}

/** inline draws the links, code and bold words of Markdown. */
function inline(text: string): ComponentChildren[] {
  return text.split(/(\[[^\]]+\]\([^)]+\)|`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    const link = /^\[([^\]]+)\]\(([^)]+)\)$/.exec(part);
    if (link) return /^(https?:|\/)/.test(link[2]) ? <a href={link[2]}>{link[1]}</a> : link[1];
    if (part.startsWith("`")) return <code>{part.slice(1, -1)}</code>;
    if (part.startsWith("**")) return <b>{part.slice(2, -2)}</b>;
    return part;
  });
}

/** number writes a value as its field wants: mapped, coloured, in its unit. */
function number(v: number | undefined, c: FieldConfig): { text: string; color?: string } {
  const m = mapped(v as number, c);
  if (v === undefined) return { text: m?.text ?? c.noValue ?? "No data" };
  return { text: m?.text ?? format(v, c.unit, c.decimals), color: m?.color ? ink(m.color) : threshold(v, c) };
}

function reduce(line: Line, how: string): number | undefined {
  const list = [...line.points.entries()].sort((a, b) => a[0] - b[0]).map((e) => e[1]).filter((v) => how.includes("NotNull") ? !Number.isNaN(v) : true);
  if (list.length === 0) return line.points.size ? NaN : undefined;
  switch (how) {
    case "max": return Math.max(...list);
    case "min": return Math.min(...list);
    case "mean": return list.reduce((a, b) => a + b, 0) / list.length;
    case "sum": return list.reduce((a, b) => a + b, 0);
    case "first": case "firstNotNull": return list[0];
  }
  return list[list.length - 1];
}

function Stat({ panel, view }: { panel: Panel; view: View }) {
  const area = panel.options?.graphMode === "area" && !shown(panel).some((t) => t.instant);
  const { data: both, error } = useQuery(view, keyOf(panel, view), (s) => Promise.all([values(panel, view, s), area ? ranges(panel, view, s) : []]));
  const [data, history] = both ?? [];
  const how = panel.options?.reduceOptions?.calcs?.[0] ?? "lastNotNull";
  const mode: string = panel.options?.textMode ?? "auto";
  const lines = data ?? [];
  if (data && lines.length === 0) {
    const c = panel.fieldConfig?.defaults ?? {};
    const n = number(undefined, c);
    return <div class="stats"><div class="stat"><strong>{n.text}</strong></div><Failed error={error} /></div>;
  }
  return <div class="stats">{lines.map((l) => {
    const n = number(reduce(l, how), l.config);
    return <div class="stat">
      <strong style={{ color: n.color }}>{n.text}</strong>
      {(lines.length > 1 || mode === "value_and_name") && mode !== "value" && <span>{l.name}</span>}
      {history?.filter((h) => h.name === l.name && h.target.refId === l.target.refId).map((h) => <Spark line={h} color={n.color} view={view} />)}
    </div>;
  })}<Failed error={error} /></div>;
}

function Spark({ line, color, view }: { line: Line; color?: string; view: View }) {
  const list = [...line.points.entries()].filter((e) => Number.isFinite(e[1])).sort((a, b) => a[0] - b[0]);
  if (list.length < 2) return null;
  const low = Math.min(0, ...list.map((e) => e[1])), high = Math.max(...list.map((e) => e[1]), low + 1e-12);
  const x = (t: number) => ((t - view.from) / (view.to - view.from) * 100).toFixed(2), y = (v: number) => (30 - (v - low) / (high - low) * 28).toFixed(2);
  return <svg class="spark" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
    <polyline points={list.map(([t, v]) => `${x(t)},${y(v)}`).join(" ")} fill="none" stroke={color ?? palette[0]} stroke-width="1.5" vector-effect="non-scaling-stroke" />
  </svg>;
}

function BarGauge({ panel, view }: { panel: Panel; view: View }) {
  const { data, error } = useQuery(view, keyOf(panel, view), (s) => values(panel, view, s));
  const how = panel.options?.reduceOptions?.calcs?.[0] ?? "lastNotNull";
  const rows = (data ?? []).map((l) => ({ l, v: reduce(l, how) }));
  const most = Math.max(...rows.map(({ l, v }) => l.config.max ?? (Number.isFinite(v) ? v! : 0)), 1e-12);
  if (data && rows.length === 0) return <Note>{panel.fieldConfig?.defaults.noValue ?? "No data"}</Note>;
  return <div class="bars">{rows.map(({ l, v }) => {
    const n = number(v, l.config);
    return <div class="bar"><span>{l.name}</span>
      <div><i style={{ width: `${Math.max(0, Math.min(1, (v ?? 0) / most)) * 100 || 0}%`, background: n.color ?? palette[0] }} /></div><strong>{n.text}</strong></div>;
  })}<Failed error={error} /></div>;
}

function Table({ panel, view }: { panel: Panel; view: View }) {
  const { data, error } = useQuery(view, keyOf(panel, view), (s) => instants(panel, view, s));
  if (!data) return <Failed error={error} />;
  // One row a set of labels, one column a target.
  const organize = panel.transformations?.find((t) => t.id === "organize")?.options ?? {};
  const rename: Record<string, string> = organize.renameByName ?? {}, excluded: Record<string, boolean> = organize.excludeByName ?? {};
  const rows = new Map<string, { labels: Record<string, string>; values: Record<string, number> }>();
  const columns = new Set<string>();
  for (const [t, list] of data) for (const { metric, value } of list) {
    const { __name__, ...labels } = metric;
    const key = JSON.stringify(labels);
    for (const l of Object.keys(labels)) if (!excluded[l]) columns.add(l);
    const row = rows.get(key) ?? { labels, values: {} };
    row.values[t.refId] = Number(value[1]);
    rows.set(key, row);
  }
  if (rows.size === 0) return <Note>{panel.fieldConfig?.defaults.noValue ?? "No data"}</Note>;
  const field = (t: Target) => data.length === 1 ? "Value" : `Value #${t.refId}`;
  const targets = data.map(([t]) => t).filter((t) => !excluded[field(t)]);
  const names = [...columns].sort();
  return <div class="scroll" tabIndex={0}><table><thead><tr>{names.map((c) => <th scope="col">{rename[c] ?? c}</th>)}{targets.map((t) => <th scope="col" class="n">{rename[field(t)] ?? t.legendFormat ?? field(t)}</th>)}</tr></thead>
    <tbody>{[...rows.values()].slice(0, 200).map((r) => <tr>{names.map((c) => <td>{r.labels[c] ?? ""}</td>)}{targets.map((t) => {
      const n = number(r.values[t.refId], configFor(panel, rename[field(t)] ?? field(t), t.refId));
      return <td class="n" style={{ color: n.color }}>{n.text}</td>;
    })}</tr>)}</tbody></table><Failed error={error} /></div>;
}

function Heatmap({ panel, view }: { panel: Panel; view: View }) {
  const { data, error } = useQuery(view, keyOf(panel, view), (s) => ranges(panel, view, s));
  const ref = useRef<HTMLCanvasElement>(null);
  const lines = (data ?? []).map((l) => ({ le: l.metric.le === "+Inf" ? Infinity : Number(l.metric.le), l })).filter((x) => !Number.isNaN(x.le)).sort((a, b) => a.le - b.le);
  const unit = panel.options?.yAxis?.unit ?? panel.fieldConfig?.defaults.unit ?? "s";
  useEffect(() => {
    const canvas = ref.current, c = canvas?.getContext("2d");
    if (!canvas || !c || lines.length === 0) return;
    const w = canvas.width = canvas.clientWidth * devicePixelRatio, h = canvas.height = canvas.clientHeight * devicePixelRatio;
    const steps = Math.round((view.to - view.from) / view.step) + 1;
    const cells = lines.map((x, i) => Array.from({ length: steps }, (_, s) => {
      const t = view.from + s * view.step;
      return Math.max(0, (x.l.points.get(t) ?? 0) - (i ? lines[i - 1].l.points.get(t) ?? 0 : 0));
    }));
    const most = Math.max(...cells.flat(), 1e-12);
    c.clearRect(0, 0, w, h);
    cells.forEach((row, i) => row.forEach((v, s) => {
      if (v <= 0) return;
      c.fillStyle = `hsl(${215 - 190 * Math.sqrt(v / most)} 75% ${view.dark ? 30 + 30 * Math.sqrt(v / most) : 75 - 30 * Math.sqrt(v / most)}%)`;
      c.fillRect(s / steps * w, h - (i + 1) / lines.length * h, w / steps + 1, h / lines.length - 1);
    }));
  });
  if (data && lines.length === 0) return <Note>{panel.fieldConfig?.defaults.noValue ?? "No data"}</Note>;
  const every = Math.ceil(lines.length / 6), x = ticks(view.from, view.to, 5);
  const across = (t: number) => `${(t - view.from) / (view.to - view.from + view.step) * 100}%`;
  return <div class="heat">
    <ol class="buckets" aria-hidden="true">{lines.map((b, i) => i % every === 0 && <li style={{ bottom: `${(i + .5) / lines.length * 100}%` }}>{b.le === Infinity ? "∞" : format(b.le, unit)}</li>)}</ol>
    <canvas ref={ref} role="img" aria-label={panel.title + ": share of requests by time and bucket"} />
    <ol class="times" aria-hidden="true">{x.times.map((t) => <li class={t > view.to - (view.to - view.from) / 12 ? "last" : ""} style={{ left: across(t) }}>{clock(t, x.every)}</li>)}</ol>
    <Failed error={error} /></div>;
}

/** widest is the width of the longest of some labels as an axis draws them. */
function widest(labels: string[]): number {
  const c = document.createElement("canvas").getContext("2d")!;
  c.font = axisFont;
  return Math.max(0, ...labels.map((l) => c.measureText(l).width));
}

const axisFont = "11px system-ui";

/** axisWidth is the least of a value axis, so that graphs below each other have their times in line. */
const axisWidth = 74;

/** between is the least distance of two marks of a time axis; whole minutes are shorter than what has seconds. */
function between(_: uPlot, __: number, from: number, to: number, width: number): number {
  const minute = width * 60 / (to - from);
  return minute >= 38 && minute < 64 ? 38 : 64;
}

function Graph({ panel, view }: { panel: Panel; view: View }) {
  const { data, error } = useQuery(view, keyOf(panel, view), (s) => ranges(panel, view, s));
  const place = useRef<HTMLDivElement>(null);
  const [off, setOff] = useState<Record<string, boolean>>({});
  const lines = data ?? [];
  const colors = lines.map((l, i) => l.config.drawn ?? (l.config.color?.mode === "fixed" && l.config.color.fixedColor ? paint(l.config.color.fixedColor) : palette[i % palette.length]));
  useLayoutEffect(() => {
    const box = place.current;
    if (!box || lines.length === 0) return;
    const times: number[] = [];
    for (let t = view.from; t <= view.to; t += view.step) times.push(t);
    const all = lines.map((l, i) => ({ l, color: colors[i], stacked: l.config.custom?.stacking?.mode === "normal" })).filter(({ l }) => !off[l.name]);
    const kept = [...all.filter((k) => k.stacked), ...all.filter((k) => !k.stacked)];
    const columns = kept.map(({ l }) => times.map((t) => { const v = l.points.get(t); return v === undefined || !Number.isFinite(v) ? null : v; }));
    // Stacked series have an area each, which comes first, and a line.
    const depth = all.filter((k) => k.stacked).length;
    const { areas, lines: tops } = stack(columns.slice(0, depth));
    columns.splice(0, depth, ...tops);
    const style = getComputedStyle(box);
    const stroke = style.getPropertyValue("--soft"), grid = { stroke: style.getPropertyValue("--line"), width: 1 };
    const d = panel.fieldConfig?.defaults ?? {};
    const plot = new uPlot({
      width: box.clientWidth, height: box.clientHeight, legend: { show: false },
      cursor: { points: { size: 6 }, y: false, drag: { x: false, y: false } },
      scales: { x: { min: view.from, max: view.to }, y: { range: (_, low, high) => {
        const a = d.min ?? Math.min(0, low ?? 0), b = d.max ?? (high > a ? high : a + 1);
        return [a, d.max === undefined ? a + (b - a) * 1.08 : b];
      } } },
      // Of stacked series each is filled down to the one below it.
      bands: areas.slice(1).map((_, i) => ({ series: [i + 2, i + 1] as [number, number] })),
      axes: [{ stroke, grid, ticks: grid, font: axisFont, space: between, values: (_, list, __, ___, every) => list.map((t) => clock(t, every)) }, { stroke, grid, ticks: grid, font: axisFont, space: 26, size: (_, labels) => Math.max(axisWidth, Math.ceil(widest(labels ?? [])) + 18), values: (_, list) => list.map((v) => format(v, d.unit)) }],
      series: [{}, ...areas.map((_, i) => ({ width: 0, points: { show: false }, fill: kept[i].color + "66" })), ...kept.map(({ l, color, stacked }) => ({
        label: l.name, stroke: color, width: 1.5, points: { show: l.points.size < 2 },
        fill: !stacked && (l.config.custom?.fillOpacity ?? 0) > 0 ? color + "1c" : undefined,
      }))],
      hooks: { setCursor: [(u) => {
        const i = u.cursor.idx;
        const tip = box.querySelector<HTMLElement>(".tip")!;
        if (i === null || i === undefined || (u.cursor.left ?? -1) < 0) { tip.hidden = true; return; }
        const rows = kept.map(({ l, color }) => ({ l, color, v: l.points.get(times[i]) })).filter((r) => r.v !== undefined).sort((a, b) => b.v! - a.v!).slice(0, 12);
        tip.hidden = rows.length === 0;
        tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: clock(times[i], 1) }), ...rows.map((r) => {
          const line = document.createElement("div"), dot = document.createElement("i"), text = document.createElement("span");
          dot.style.background = r.color;
          text.textContent = `${r.l.name}: ${format(r.v!, r.l.config.unit, r.l.config.decimals)}`;
          line.append(dot, text);
          return line;
        }));
        const left = (u.cursor.left ?? 0) + u.bbox.left / devicePixelRatio;
        tip.style.left = left > box.clientWidth / 2 ? "" : `${left + 12}px`;
        tip.style.right = left > box.clientWidth / 2 ? `${box.clientWidth - left + 12}px` : "";
      }] },
    }, [times, ...areas, ...columns] as uPlot.AlignedData, box);
    const resized = new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: box.clientHeight }));
    resized.observe(box);
    return () => { resized.disconnect(); plot.destroy(); };
  }, [data, off, view.dark]);
  if (data && lines.length === 0) return <><Note>{panel.fieldConfig?.defaults.noValue ?? "No data"}</Note><Failed error={error} /></>;
  return <>
    <div class="graph" ref={place} role="img" aria-label={`${panel.title}: ${lines.length} series over time`}><div class="tip" hidden /></div>
    <ul class="legend">{lines.slice(0, 30).map((l, i) => <li><button type="button" aria-pressed={!off[l.name]} onClick={() => setOff({ ...off, [l.name]: !off[l.name] })}><i style={{ background: colors[i] }} />{l.name}</button></li>)}
      {lines.length > 30 && <li>and {lines.length - 30} more</li>}</ul>
    <Failed error={error} />
  </>;
}

const bodies: Record<string, (p: { panel: Panel; view: View }) => any> = {
  timeseries: Graph, stat: Stat, gauge: Stat, bargauge: BarGauge, table: Table, heatmap: Heatmap, text: Text,
};
