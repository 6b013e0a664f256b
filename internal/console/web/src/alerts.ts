// What the alerts' page says of the rules.
import type { Instant, Rule, RuleGroup } from "./api";

/** Standing is an alerting rule and how it stands. */
export interface Standing { group: string; rule: Rule; state: "silent" | "firing" | "pending" | "alive" | "inactive"; fired?: number }

const order = ["silent", "firing", "pending", "alive", "inactive"];

/**
 * standings lists the alerting rules, what needs somebody first. An alert of
 * severity none, the watchdog, fires for as long as alerting works: firing it is
 * alive, and quiet it is silent, which is what is wrong. fired is when an alert
 * fired last, in seconds; of the quiet ones those that did come first.
 */
export function standings(groups: RuleGroup[], fired = new Map<string, number>()): Standing[] {
  const state = (r: Rule): Standing["state"] =>
    r.labels.severity === "none" ? (r.state === "firing" ? "alive" : "silent") : r.state as Standing["state"];
  return groups.flatMap((g) => g.rules.filter((r) => r.type === "alerting").map((rule) => ({ group: g.name, rule, state: state(rule), fired: fired.get(rule.name) })))
    .sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || (b.fired ?? 0) - (a.fired ?? 0));
}

/** lately asks which alerts fired within the history of a day, and when last. */
export const lately = {
  query: `max by (alertname) (max_over_time(timestamp(ALERTS{alertstate="firing"})[24h:30s]))`,
  read: (list: Instant[]) => new Map(list.map((s) => [s.metric.alertname, Number(s.value[1])])),
};

/** sentence says what a quiet alert is about. What only an alert that fires knows is "…". */
export function sentence(r: Rule): string {
  return (r.annotations?.summary ?? "").replace(/\{\{.*?\}\}/g, "…");
}
