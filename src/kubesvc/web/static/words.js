// What things are called: texts for eyes and for screen readers. Pure.

export const STATUS_WORDS = { healthy: "routes", degraded: "routes, with a flaw", broken: "does not route", unknown: "cannot tell" };
export const COLLATOR = new Intl.Collator("en", { numeric: true });

export function plural(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

export function rateText(rate) {
  if (!rate) return "0/s";
  return rate < 10 ? `${rate.toFixed(1)}/s` : `${Math.round(rate).toLocaleString("en")}/s`;
}

export function milliseconds(ms) {
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

export function podWord(pod) {
  return { ready: "takes traffic", leaving: "is leaving and still serves", out: "takes no traffic" }[pod.state];
}

export function where(pod) {
  const address = (pod.addresses || []).join(", ") || "no address";
  return pod.node ? `${address} on ${pod.node}` : address;
}

export function ruleText(rule) {
  return (rule.fronts || []).join(", ") || "no rule";
}

export function shareText(rule, service) {
  if (!(rule.fronts || []).length) return "";
  const chance = rule.share > 1 ? `1 in ${rule.share}, by chance` : "every connection";
  const from = (rule.only || []).length ? `from ${rule.only.join(", ")} only` : "";
  return [chance, from].filter(Boolean).join(", ");
}

export function trafficText(traffic) {
  if (!traffic || !traffic.counted) return "not counted";
  return `${rateText(traffic.rate || 0)}, ${plural(traffic.total || 0, "connection")}`;
}

// One sentence about a card, for its label: everything that its looks and its edges say.
export function labelOf(id, item, edges) {
  const grey = edges.filter((e) => e.target === id && e.state !== "live" && e.reason);
  const why = grey.length ? `; ${grey[0].state === "grey" ? "not reached" : "unknown"}: ${grey[0].reason}` : "";
  switch (item.kind) {
    case "service":
      return `Service ${item.name} in namespace ${item.namespace}, ${item.about}: ${item.verdict}`;
    case "slice":
      return `EndpointSlice ${item.name}, ${item.family}, ${item.ready || 0} of ${plural(item.total || 0, "endpoint")} ready${why}`;
    case "pod":
      return `Pod ${item.name}, ${where(item)}, ${podWord(item)}${why}`;
    case "rule":
      return `Rule: ${ruleText(item)}${shareText(item) ? `, ${shareText(item)}` : ""}${why}`;
    case "traffic":
      return `Connections: ${trafficText(item)}${why}`;
    case "gap":
      return `Nothing here: ${item.text}`;
  }
  return id;
}
