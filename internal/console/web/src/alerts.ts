// What the alerts' page says of the rules.
import type { Rule, RuleGroup } from "./api";

/** Standing is an alerting rule and how it stands. */
export interface Standing { group: string; rule: Rule; state: "silent" | "firing" | "pending" | "alive" | "inactive" }

const order = ["silent", "firing", "pending", "alive", "inactive"];

/**
 * standings lists the alerting rules, what needs somebody first. An alert of
 * severity none, the watchdog, fires for as long as alerting works: firing it is
 * alive, and quiet it is silent, which is what is wrong.
 */
export function standings(groups: RuleGroup[]): Standing[] {
  const state = (r: Rule): Standing["state"] =>
    r.labels.severity === "none" ? (r.state === "firing" ? "alive" : "silent") : r.state as Standing["state"];
  return groups.flatMap((g) => g.rules.filter((r) => r.type === "alerting").map((rule) => ({ group: g.name, rule, state: state(rule) })))
    .sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
}
