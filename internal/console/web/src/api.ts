// What the page reads: dashboards, and Prometheus' read API of the service.
import { scrapeInterval } from "./dashboard";

export type Labels = Record<string, string>;
export type Sample = [number, string];
export interface Series { metric: Labels; values: Sample[] }
export interface Instant { metric: Labels; value: Sample }
export interface Alert { labels: Labels; annotations: Labels; state: string; activeAt: string; value: string }
export interface RuleGroup { name: string; rules: Rule[] }
export interface Rule { name: string; type: string; state?: string; health: string; lastError?: string; query: string; annotations?: Labels; labels: Labels; alerts?: Alert[] }

/** Needed is thrown when the service wants a token that it did not get. */
export class Needed extends Error {}

const tokenName = "headway-token";
export const token = {
  get: () => sessionStorage.getItem(tokenName) ?? "",
  set: (value: string) => sessionStorage.setItem(tokenName, value),
};

async function get<T>(path: string, params: Record<string, string>, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = {};
  if (token.get()) headers["Authorization"] = "Bearer " + token.get();
  const answer = await fetch(path + "?" + new URLSearchParams(params), { headers, signal });
  if (answer.status === 401 || answer.status === 403) throw new Needed(await message(answer));
  if (!answer.ok) throw new Error(await message(answer));
  return await answer.json() as T;
}

async function message(answer: Response): Promise<string> {
  try {
    const body = await answer.json();
    return body.error ?? body.detail ?? answer.statusText;
  } catch {
    return answer.statusText;
  }
}

// Relative to the page, which is below console/ whatever a proxy puts before it.
const base = "../prometheus/api/v1";
interface Reply<T> { data: T }

export const api = {
  dashboard: <T>(name: string) => get<T>(`dashboards/${name}.json`, {}),
  range: async (query: string, start: number, end: number, step: number, signal: AbortSignal) =>
    (await get<Reply<{ result: Series[] }>>(`${base}/query_range`, { query, start: `${start}`, end: `${end}`, step: `${step}` }, signal)).data.result,
  /** instant evaluates at the service's present, whatever the clock here says. */
  instant: async (query: string, signal: AbortSignal) => {
    const data = (await get<Reply<{ resultType: string; result: Instant[] | Sample }>>(`${base}/query`, { query }, signal)).data;
    return data.resultType === "scalar" ? [{ metric: {}, value: data.result as Sample }] : data.result as Instant[];
  },
  values: async (label: string, match: string, signal?: AbortSignal) =>
    (await get<Reply<string[]>>(`${base}/label/${encodeURIComponent(label)}/values`, match ? { "match[]": match } : {}, signal)).data,
  /** age is how far back the history goes, in seconds, up to an hour. */
  age: async () => {
    const found = await api.instant("time() - min(min_over_time(timestamp(up)[1h:15s]))", new AbortController().signal);
    return found.length ? Number(found[0].value[1]) : 0;
  },
  scrape: async () => scrapeInterval((await get<Reply<{ yaml: string }>>(`${base}/status/config`, {})).data.yaml),
  rules: async (signal?: AbortSignal) => (await get<Reply<{ groups: RuleGroup[] }>>(`${base}/rules`, {}, signal)).data.groups,
};
