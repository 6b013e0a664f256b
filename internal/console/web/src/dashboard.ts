// The part of Grafana's dashboard model that is drawn.
import { duration } from "./format";

export interface Target { expr: string; legendFormat?: string; refId: string; instant?: boolean; range?: boolean; format?: string; hide?: boolean }
export interface Threshold { color: string; value: number | null }
export interface Mapping { type: string; options: any }
export interface FieldConfig {
  unit?: string; decimals?: number; min?: number; max?: number; noValue?: string; displayName?: string;
  thresholds?: { steps: Threshold[] }; mappings?: Mapping[]; color?: { mode: string; fixedColor?: string };
  custom?: { fillOpacity?: number; stacking?: { mode: string }; drawStyle?: string };
}
export interface Override { matcher: { id: string; options: any }; properties: { id: string; value: any }[] }
export interface Panel {
  id: number; type: string; title: string; description?: string; gridPos: { x: number; y: number; w: number; h: number };
  targets?: Target[]; fieldConfig?: { defaults: FieldConfig; overrides?: Override[] };
  options?: any; panels?: Panel[]; collapsed?: boolean; links?: { title: string; url: string }[];
  transformations?: { id: string; options: any }[];
}
export interface Variable {
  name: string; label?: string; type: string; query?: any; definition?: string; includeAll?: boolean; multi?: boolean; allValue?: string; hide?: number;
  current?: { value?: any }; regex?: string;
}
export interface Dashboard { title: string; description?: string; panels: Panel[]; templating?: { list: Variable[] }; time?: { from: string }; refresh?: string; links?: { title: string; url: string }[] }

/** flat puts the panels of collapsed rows behind their row. */
export function flat(panels: Panel[]): Panel[] {
  return panels.flatMap((p) => p.type === "row" ? [p, ...(p.panels ?? [])] : [p]);
}

/** ofTheDataPlane are the graphs of everything that the overview begins with. */
const ofTheDataPlane = ["Calls of heads", "Why calls of heads fail", "Time to first token", "Tokens", "Requests that wait", "Retries, hedges, fallbacks and cut answers", "Overhead"];

/**
 * overview is the page that opens: how it stands, what the data plane does, and the
 * panels of the basic dashboard, two beside each other.
 */
export function overview(basic: Dashboard, everything: Dashboard): Dashboard {
  const all = flat(everything.panels);
  const stats = all.filter((p) => p.type === "stat").slice(0, 6);
  const graphs = [...ofTheDataPlane.flatMap((title) => all.find((p) => p.title === title) ?? []), ...basic.panels];
  return {
    ...everything, title: basic.title,
    panels: [
      ...stats.map((p, i) => ({ ...p, gridPos: { x: i * 4, y: 0, w: 4, h: 4 } })),
      ...graphs.map((p, i) => ({ ...p, gridPos: { x: i % 2 * 12, y: 4 + Math.floor(i / 2) * 9, w: 12, h: 9 } })),
    ],
  };
}

/**
 * asksNow tells whether a panel shows what a target is at present: a value that
 * ended long ago is no answer to "how many?". A reduction over the range, such as
 * the highest value, asks for the range.
 */
export function asksNow(p: Panel, t: Target): boolean {
  if (p.type === "table" || t.instant) return true;
  if (!["stat", "gauge", "bargauge"].includes(p.type)) return false;
  return ["last", "lastNotNull"].includes(p.options?.reduceOptions?.calcs?.[0] ?? "lastNotNull");
}

/** scrapeInterval reads how often the service samples itself from its configuration, in seconds. */
export function scrapeInterval(yaml: string): number {
  return duration(/^\s*scrape_interval:\s*(\S+)\s*$/m.exec(yaml)?.[1] ?? "") || 15;
}

/** openings bound, in seconds, what the page shows at first: what exists, up to an hour. */
const openings = { least: 60, most: 3600 };

/** opening is the range to show of a history that is so old, in whole minutes. */
export function opening(age: number | undefined): number {
  return Math.min(openings.most, Math.max(openings.least, Math.ceil((age || 0) / 60) * 60));
}

export type Column = (number | null)[];

/**
 * stack puts columns on top of each other. areas are what is filled; lines are the same without the
 * times at which a series is 0: its line on top of the others would read as if it had their value.
 */
export function stack(columns: Column[]): { areas: Column[]; lines: Column[] } {
  const areas: Column[] = [], lines: Column[] = [];
  const there = columns[0]?.map((_, j) => columns.some((c) => c[j] !== null)) ?? [];
  columns.forEach((own, i) => {
    const area = own.map((v, j) => there[j] ? (i ? areas[i - 1][j]! : 0) + (v ?? 0) : null);
    areas.push(area);
    lines.push(area.map((v, j) => own[j - 1] || own[j] || own[j + 1] ? v : null));
  });
  return { areas, lines };
}

export type Values = Record<string, string[]>;

const escape = (s: string) => s.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\\/g, "\\\\");

/** fill puts variables and Grafana's intervals into an expression. */
export function fill(text: string, values: Values, all: Record<string, string>, step: number, range: number, scrape: number): string {
  const intervals: Record<string, string> = {
    __interval: `${step}s`, __rate_interval: `${Math.max(4 * scrape, step + scrape)}s`, __range: `${Math.round(range)}s`,
    __range_s: `${Math.round(range)}`, __interval_ms: `${step * 1000}`,
  };
  return text.replace(/\$\{(\w+)(?::(\w+))?\}|\$(\w+)|\[\[(\w+)\]\]/g, (whole, a, kind, b, c) => {
    const name = a ?? b ?? c;
    if (intervals[name] !== undefined) return intervals[name];
    const list = values[name];
    if (!list) return whole;
    if (list.length === 0 || list.includes("$__all")) return all[name] ?? ".*";
    if (kind === "raw") return list.join(",");
    return list.length === 1 ? escape(list[0]) : "(" + list.map(escape).join("|") + ")";
  });
}

/** labelQuery reads label_values(metric, label). */
export function labelQuery(v: Variable): { label: string; match: string } | undefined {
  const text = typeof v.query === "string" ? v.query : v.query?.query ?? v.definition ?? "";
  const m = /^label_values\(\s*(?:(.*),)?\s*([A-Za-z_][\w]*)\s*\)$/s.exec(text);
  return m ? { match: (m[1] ?? "").trim(), label: m[2] } : undefined;
}

/** legend names a series as its target wants. */
export function legend(target: Target, metric: Record<string, string>): string {
  const wanted = target.legendFormat;
  if (wanted && wanted !== "__auto") return wanted.replace(/\{\{\s*([\w]+)\s*\}\}/g, (_, name) => metric[name] ?? "").trim() || "all";
  const { __name__: name = "", ...rest } = metric;
  const labels = Object.entries(rest).map(([k, v]) => `${k}="${v}"`).join(", ");
  if (name || labels) return labels ? `${name}{${labels}}` : name;
  return target.expr;
}

/** mapped is the text and colour that a value is mapped to. */
export function mapped(v: number, c: FieldConfig): { text?: string; color?: string } | undefined {
  for (const m of c.mappings ?? []) {
    const o = m.options;
    if (m.type === "value" && o[String(v)]) return o[String(v)];
    if (m.type === "range" && (o.from === null || v >= o.from) && (o.to === null || v <= o.to)) return o.result;
    if (m.type === "special" && (
      (o.match === "nan" || o.match === "null+nan") && Number.isNaN(v) || o.match === "null" && v === null ||
      o.match === "empty" && v === undefined)) return o.result;
  }
  return undefined;
}

const named: Record<string, string> = {
  green: "#2f9e5b", red: "#d64550", orange: "#dd7f1f", yellow: "#b98a00", blue: "#3a7bd5", purple: "#8a5cd0", text: "currentColor", transparent: "transparent",
};
export function paint(color: string): string {
  return named[color] ?? named[color.replace(/^(super-light|light|semi-dark|dark)-/, "")] ?? color;
}

const inks: Record<string, string> = { green: "var(--good)", red: "var(--bad)", orange: "var(--warn)", yellow: "var(--warn)", blue: "var(--accent)" };
/** ink is a colour that text can be read in, on light and on dark. */
export function ink(color: string): string {
  return inks[color.replace(/^(super-light|light|semi-dark|dark)-/, "")] ?? paint(color);
}

export function threshold(v: number, c: FieldConfig): string | undefined {
  let color: string | undefined;
  for (const s of c.thresholds?.steps ?? []) if (s.value === null || s.value === undefined || v >= s.value) color = s.color;
  return color && ink(color);
}

/** configFor lays the overrides of a series over the defaults. */
export function configFor(p: Panel, name: string, refId: string): FieldConfig & { drawn?: string } {
  const c: any = { ...(p.fieldConfig?.defaults ?? {}) };
  for (const o of p.fieldConfig?.overrides ?? []) {
    const { id, options } = o.matcher;
    let hit = id === "byName" && options === name || id === "byFrameRefID" && options === refId;
    if (id === "byRegexp") { try { hit = new RegExp(String(options).replace(/^\/|\/$/g, "")).test(name); } catch { hit = false; } }
    if (!hit) continue;
    for (const { id: key, value } of o.properties) {
      if (key === "color") c.drawn = value?.fixedColor ? paint(value.fixedColor) : undefined;
      else if (key.startsWith("custom.")) c.custom = { ...c.custom, [key.slice(7)]: value };
      else c[key] = value;
    }
  }
  return c;
}
