// Numbers for people, in the units that Grafana's dashboards name.

const scaled = (v: number, steps: [number, string][], digits = 3): string => {
  const size = Math.abs(v);
  let [factor, name] = steps[steps.length - 1];
  for (const [f, n] of steps) if (size >= f) { [factor, name] = [f, n]; break; }
  return trim(v / factor, digits) + name;
};

function trim(v: number, digits: number): string {
  if (v === 0) return "0";
  return Number(v.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 6 });
}

const short: [number, string][] = [[1e12, " T"], [1e9, " B"], [1e6, " M"], [1e3, " K"], [1, ""]];
const binary: [number, string][] = [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"], [1, " B"]];
const seconds: [number, string][] = [[604800, " w"], [86400, " d"], [3600, " h"], [60, " min"], [1, " s"], [1e-3, " ms"], [1e-6, " µs"], [1e-9, " ns"]];

const perSecond: Record<string, string> = { reqps: " req/s", ops: " ops/s", cps: "/s", eps: " events/s", wps: " writes/s", rps: " reads/s", mps: " msg/s", hertz: " Hz" };

/** format writes a number in a Grafana unit. */
export function format(v: number, unit = "short", decimals?: number): string {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? "–" : v > 0 ? "∞" : "−∞";
  if (decimals !== undefined && (unit === "short" || unit === "none")) return v.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  switch (unit) {
    case "s": case "dtdurations": return v === 0 ? "0 s" : scaled(v, seconds);
    case "ms": return v === 0 ? "0 ms" : scaled(v / 1000, seconds);
    case "bytes": return scaled(v, binary);
    case "Bps": case "binBps": return scaled(v, binary) + "/s";
    case "percentunit": return trim(v * 100, decimals === undefined ? 3 : 6) + " %";
    case "percent": return trim(v, 3) + " %";
    case "none": return trim(v, 6);
    case "bool": return v ? "true" : "false";
    case "bool_yes_no": return v ? "Yes" : "No";
    case "dateTimeAsIso": return new Date(v).toISOString().slice(0, 19).replace("T", " ");
  }
  return scaled(v, short) + (perSecond[unit] ?? (unit === "short" || unit === "" ? "" : " " + unit.replace(/^suffix:/, "")));
}

/** duration reads 5m or 1m30s as seconds; what it cannot read is 0. */
export function duration(text: string): number {
  const units: Record<string, number> = { ms: 1e-3, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
  if (!/^(\d+(ms|[smhdw]))+$/.test(text)) return 0;
  return [...text.matchAll(/(\d+)(ms|[smhdw])/g)].reduce((sum, m) => sum + Number(m[1]) * units[m[2]], 0);
}

export function span(s: number): string {
  for (const [f, n] of [[86400, "d"], [3600, "h"], [60, "m"]] as [number, string][]) if (s >= f && s % f === 0) return s / f + n;
  return Math.max(1, Math.round(s)) + "s";
}

/** clock writes a time for an axis whose marks are some seconds apart. */
export function clock(t: number, every: number): string {
  const d = new Date(t * 1000), two = (n: number) => String(n).padStart(2, "0");
  if (every >= 86400) return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  return `${two(d.getHours())}:${two(d.getMinutes())}` + (every < 60 ? ":" + two(d.getSeconds()) : "");
}

/** ticks are the marks of a time axis, at most so many, at times that people round to. */
export function ticks(from: number, to: number, most: number): { times: number[]; every: number } {
  const steps = [1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const every = steps.find((s) => (to - from) / s <= most) ?? Math.ceil((to - from) / most / 86400) * 86400;
  const shift = new Date(from * 1000).getTimezoneOffset() * 60, times: number[] = [];
  for (let t = Math.ceil((from - shift) / every) * every + shift; t <= to; t += every) times.push(t);
  return { times, every };
}
