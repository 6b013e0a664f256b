import { render } from "preact";
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { api, Needed, token, type RuleGroup } from "./api";
import { flat, labelQuery, opening, overview, type Dashboard, type Panel, type Values } from "./dashboard";
import { duration, span } from "./format";
import { lately, sentence, standings } from "./alerts";
import { PanelFrame, type View } from "./panels";

const boards = [
  { id: "routing-service", title: "Overview" },
  { id: "routing-service-enhanced", title: "Everything" },
];
const alertsPage = "alerts";
const existing = "what exists"; // up to an hour
const ranges = [existing, "5m", "15m", "1h", "6h", "24h"];
const refreshes = ["off", "5s", "15s", "1m"];

/** What the page shows is its address, so that it can be sent to somebody. */
function useAddress() {
  const read = () => new URLSearchParams(location.hash.slice(1));
  const [params, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const change = useCallback((name: string, value: string) => {
    const next = read();
    value ? next.set(name, value) : next.delete(name);
    location.hash = next.toString();
  }, []);
  return [params, change] as const;
}

function useTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const [theme, set] = useState(localStorage.getItem("headway-theme") ?? (dark.matches ? "dark" : "light"));
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, (next: string) => { localStorage.setItem("headway-theme", next); set(next); }] as const;
}

function App() {
  const [params, change] = useAddress();
  const [theme, setTheme] = useTheme();
  const [tick, setTick] = useState(0);
  const [needed, setNeeded] = useState("");
  const page = params.get("page") ?? (location.pathname.endsWith("/" + alertsPage) ? alertsPage : boards[0].id);
  const range = params.get("range") ?? existing, refresh = params.get("refresh") ?? "15s";
  useEffect(() => {
    const every = duration(refresh);
    if (!every) return;
    const timer = setInterval(() => { if (!document.hidden) setTick((n) => n + 1); }, every * 1000);
    return () => clearInterval(timer);
  }, [refresh]);
  const fail = useCallback((e: unknown) => { if (e instanceof Needed) setNeeded(e.message); }, []);
  const [age, setAge] = useState<number>();
  useEffect(() => {
    if (range === existing && page !== alertsPage) api.age().then(setAge, (e) => { fail(e); setAge(3600); });
  }, [range, page, tick]);
  const seconds = range === existing ? opening(age) : duration(range) || 3600;
  if (needed) return <Login why={needed} done={() => setNeeded("")} />;
  return <>
    <header class="top">
      <h1>Headway</h1>
      <nav aria-label="Pages">{[...boards, { id: alertsPage, title: "Alerts" }].map((b) =>
        <a href={"#" + new URLSearchParams({ ...Object.fromEntries(params), page: b.id })} aria-current={page === b.id ? "page" : undefined}>{b.title}</a>)}<a href="runbooks">Runbooks</a></nav>
      <div class="controls">
        <Pick label="Time" value={range} options={ranges} change={(v) => change("range", v)} show={(v) => v === existing ? v : "last " + v} />
        <Pick label="Refresh" value={refresh} options={refreshes} change={(v) => change("refresh", v)} show={(v) => v === "off" ? "off" : "every " + v} />
        <button type="button" onClick={() => setTick((n) => n + 1)}>Refresh</button>
        <button type="button" onClick={() => setTheme(theme === "dark" ? "light" : "dark")}>{theme === "dark" ? "Light" : "Dark"}</button>
      </div>
    </header>
    <main>{page === alertsPage ? <Alerts tick={tick} fail={fail} /> : range === existing && age === undefined ? <p class="boot">Loading…</p> : <Board key={page} id={page} params={params} change={change} range={seconds} tick={tick} dark={theme === "dark"} fail={fail} />}</main>
  </>;
}

function Pick({ label, value, options, change, show = (v) => v }: { label: string; value: string; options: string[]; change: (v: string) => void; show?: (v: string) => string }) {
  return <label>{label} <select value={value} onChange={(e) => change(e.currentTarget.value)}>{options.map((o) => <option value={o}>{show(o)}</option>)}</select></label>;
}

function Login({ why, done }: { why: string; done: () => void }) {
  return <form class="login" onSubmit={(e) => { e.preventDefault(); token.set(String(new FormData(e.currentTarget).get("key"))); done(); }}>
    <h1>Headway</h1><p>{why}</p>
    <label>API key, at least of role viewer <input type="password" name="key" autocomplete="current-password" required /></label>
    <button>Show</button><p class="note">It stays in this tab.</p>
  </form>;
}

function Board({ id, params, change, range, tick, dark, fail }: { id: string; params: URLSearchParams; change: (n: string, v: string) => void; range: number; tick: number; dark: boolean; fail: (e: unknown) => void }) {
  const [board, setBoard] = useState<Dashboard>();
  const [error, setError] = useState("");
  const [choices, setChoices] = useState<Record<string, string[]>>({});
  const [closed, setClosed] = useState<Record<string, boolean>>({});
  const [scrape, setScrape] = useState(15);
  useEffect(() => {
    const shown = id === boards[0].id ? Promise.all(boards.map((b) => api.dashboard<Dashboard>(b.id))).then(([basic, everything]) => overview(basic, everything)) : api.dashboard<Dashboard>(id);
    Promise.all([shown, api.scrape()]).then(([b, every]) => {
      setScrape(every);
      setBoard(b);
      setClosed(Object.fromEntries(b.panels.filter((p) => p.type === "row" && p.collapsed).map((p) => [p.id, true])));
    }, (e) => { fail(e); setError(e.message); });
  }, [id]);
  const variables = useMemo(() => (board?.templating?.list ?? []).filter((v) => v.type === "query" && labelQuery(v)), [board]);
  useEffect(() => {
    for (const v of variables) {
      const q = labelQuery(v)!;
      const match = q.match.replace(/\$\{?\w+\}?/g, ".*").replace(/=(?!~)"\.\*"/g, '=~".*"');
      api.values(q.label, match).then((list) => setChoices((c) => ({ ...c, [v.name]: list })), (e) => { fail(e); setError(e.message); });
    }
  }, [variables, tick]);
  const view: View = useMemo(() => {
    const step = Math.max(scrape, Math.ceil(range / 240 / scrape) * scrape);
    const to = Math.floor(Date.now() / 1000 / step) * step;
    const values: Values = {}, all: Record<string, string> = {};
    for (const v of board?.templating?.list ?? []) {
      const chosen = params.get("var-" + v.name);
      values[v.name] = v.type === "query" ? (chosen ? [chosen] : []) : [v.current?.value ?? ""].flat();
      all[v.name] = v.allValue || ".*";
    }
    return { from: to - Math.round(range / step) * step, to, step, scrape, values, all, tick, dark };
  }, [board, params, range, scrape, tick, dark]);
  if (!board) return <p class="boot">{error || "Loading…"}</p>;
  let row: Panel | undefined;
  return <>
    {variables.length > 0 && <div class="variables">{variables.filter((v) => v.hide !== 2).map((v) =>
      <Pick label={v.label || v.name} value={params.get("var-" + v.name) ?? ""} options={["", ...(choices[v.name] ?? [])]} change={(x) => change("var-" + v.name, x)} show={(x) => x || "all"} />)}
      <span class="note">one point every {span(view.step)}</span></div>}
    {error && <p class="failed" role="alert">{error}</p>}
    {board.panels[0]?.type !== "row" && <h2 class="unseen">{board.title}</h2>}
    <div class="grid">{flat(board.panels).map((p) => {
      if (p.type === "row") {
        row = p;
        return <h2 class="row"><button type="button" aria-expanded={!closed[p.id]} onClick={() => setClosed({ ...closed, [p.id]: !closed[p.id] })}>{closed[p.id] ? "▸" : "▾"} {p.title}</button></h2>;
      }
      if (row && closed[row.id]) return null;
      return <div class="cell" style={{ "--x": p.gridPos.x + 1, "--w": p.gridPos.w, "--h": p.gridPos.h } as any}><PanelFrame panel={p} view={view} /></div>;
    })}</div>
  </>;
}

/** stamp writes a time in UTC, as the log has it. */
const stamp = (at: string | number) => new Date(at).toISOString().slice(0, 19).replace("T", " ");

/** near leads to our own page of the runbooks, wherever the service is reached. */
const near = (url: string) => url.replace(/^https?:\/\/[^#]*\/console\/(?=runbooks#)/, "");

function Alerts({ tick, fail }: { tick: number; fail: (e: unknown) => void }) {
  const [groups, set] = useState<RuleGroup[]>();
  const [fired, setFired] = useState<Map<string, number>>(new Map());
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    const failed = (e: any) => { if (!stop.signal.aborted) { fail(e); setError(e.message); } };
    api.rules(stop.signal).then((g) => { set(g); setError(""); }, failed);
    api.instant(lately.query, stop.signal).then((list) => setFired(lately.read(list)), failed);
    return () => stop.abort();
  }, [tick]);
  if (!groups) return <p class="boot">{error || "Loading…"}</p>;
  const rules = standings(groups, fired);
  const recording = groups.flatMap((g) => g.rules).filter((r) => r.type !== "alerting").length;
  const count = (s: string) => rules.filter((r) => r.state === s).length;
  return <section class="alerts">
    <p class="summary"><b class={count("firing") ? "firing" : ""}>{count("firing")}</b> firing, <b class={count("pending") ? "pending" : ""}>{count("pending")}</b> pending, {count("inactive")} quiet, of which {rules.filter((r) => r.state === "inactive" && r.fired).length} fired in the last 24 h
      {count("alive") > 0 && <>; the watchdog is <b class="alive">alive</b></>}{count("silent") > 0 && <>; the watchdog is <b class="silent">silent</b>: alerts do not work</>}</p>
    <p class="note">{rules.length} alerts; the {recording} other rules of the service record series that alerts and dashboards are made of.</p>
    {error && <p class="failed" role="alert">{error}</p>}
    <ul>{rules.map(({ group, rule: r, state, fired: at }) => <li class={state}>
      <div><b>{r.name}</b> <span class={"state " + state}>{state}</span>{r.labels.severity && r.labels.severity !== "none" && <span class="note">{r.labels.severity}</span>}<span class="note">{group}</span>
        {r.annotations?.runbook_url && <a href={near(r.annotations.runbook_url)}>runbook</a>}</div>
      {r.lastError && <p class="failed">{r.lastError}</p>}
      {r.alerts?.map((a) => <p><span>{a.annotations.summary ?? ""}</span> <span class="note">{a.annotations.description ?? ""} Since {stamp(a.activeAt)}.</span></p>)}
      {!r.alerts?.length && <p><span>{sentence(r)}</span> {state === "inactive" && at && <span class="note lately">Fired last at {stamp(at * 1000)}.</span>}</p>}
      <details><summary>Expression</summary><code>{r.query}</code></details></li>)}</ul>
  </section>;
}

render(<App />, (document.getElementById("app")!.replaceChildren(), document.getElementById("app")!));
