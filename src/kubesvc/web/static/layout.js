// Where everything stands: from items to places and edges. Pure, without a document.
//
// Up to MOST_ROWS Pods have a row each. More of them become tiles in blocks: one block for what takes traffic in a
// slice, and one for each cause that keeps others out, so that every grey edge still stands beside its reason.

import { COLLATOR } from "./words.js";

export const MOST_ROWS = 12;
const ROW = 54, GREY_ROW = 74, ROW_GAP = 12, SERVICE = 138, SLICE = 84, TOP = 46, TILE = 15, PITCH = 20, HEAD = 30, REASON = 62;
const NARROWEST = 980;

function columns(width, tiled) {
  const gap = width > 1250 ? 64 : 52;
  const shares = tiled ? [0.17, 0.16, 0.35, 0.17, 0.15] : [0.19, 0.17, 0.27, 0.2, 0.17];
  const room = width - gap * (shares.length - 1);
  let x = 0;
  return shares.map((share) => {
    const column = { x, w: Math.floor(room * share) };
    x += column.w + gap;
    return column;
  });
}

// Pods in groups: {id, slices, pods, state, reason, code}. In rows each Pod is a group of its own.
export function groupsOf(items, tiled) {
  const edges = new Map();
  for (const item of items.values()) {
    if (item.kind !== "edge" || !item.target.startsWith("pod/")) continue;
    if (!edges.has(item.target)) edges.set(item.target, []);
    edges.get(item.target).push(item);
  }
  const groups = new Map();
  for (const [id, pod] of items) {
    if (pod.kind !== "pod") continue;
    const into = edges.get(id) || [];
    const sources = into.map((e) => e.source).sort(COLLATOR.compare);
    const state = into.some((e) => e.state === "live") ? "live" : (into[0] || { state: "grey" }).state;
    const grey = into.find((e) => e.state !== "live") || {};
    const cause = state === "live" ? "" : grey.code || grey.reason || "";
    const key = tiled ? `${sources.join("+")}|${state}|${cause}` : pod.name;
    if (!groups.has(key)) {
      groups.set(key, { id: `group/${key}`, sources, pods: [], state, reason: state === "live" ? "" : grey.reason || "", code: state === "live" ? "" : grey.code || "" });
    }
    groups.get(key).pods.push(id);
  }
  const listed = (g) => (g.sources[0] || "service") === "service" ? "\uffff" : g.sources[0];
  const found = [...groups.values()];
  for (const g of found) g.pods.sort(COLLATOR.compare);
  return found.sort((a, b) => COLLATOR.compare(listed(a), listed(b)) || (tiled ? (a.state !== "live") - (b.state !== "live") || b.pods.length - a.pods.length : 0) || COLLATOR.compare(a.pods[0], b.pods[0]));
}

function curve(from, to) {
  const x1 = from.x + from.w, x2 = to.x, bend = Math.max(24, (x2 - x1) * 0.55);
  return `M${x1} ${from.port} C${x1 + bend} ${from.port} ${x2 - bend} ${to.port} ${x2} ${to.port}`;
}

// Past the column of slices, below the lowest of them: what no slice lists hangs on the Service itself.
function detour(from, to, column, lane) {
  const x1 = from.x + from.w, x2 = to.x, low = Math.max(lane, to.port), bend = (column.x - x1) * 0.6;
  const end = column.x + column.w;
  return `M${x1} ${from.port} C${x1 + bend} ${from.port} ${column.x - bend} ${low} ${column.x} ${low} L${end} ${low} C${end + bend} ${low} ${x2 - bend} ${to.port} ${x2} ${to.port}`;
}

// {width, height, tiled, heads: [{x, w}], places: Map of id to {x, y, w, h, form}, edges: Map of id to {d, state, ...}}
export function layout(items, available) {
  const width = Math.max(NARROWEST, available);
  let pods = 0;
  for (const item of items.values()) pods += item.kind === "pod";
  const tiled = pods > MOST_ROWS;
  const [cService, cSlice, cPod, cRule, cTraffic] = columns(width, tiled);
  const places = new Map(), edges = new Map(), groups = groupsOf(items, tiled);
  let y = TOP;
  const spans = new Map();
  const put = (id, column, top, h, form, more) => {
    const place = { x: column.x, y: top, w: column.w, h, form, port: top + h / 2, ...more };
    places.set(id, place);
    return place;
  };
  for (const group of groups) {
    let h = ROW;
    if (tiled) {
      const across = Math.max(1, Math.floor((cPod.w - 24 + PITCH - TILE) / PITCH));
      const head = group.state === "live" ? HEAD : REASON;
      h = head + Math.ceil(group.pods.length / across) * PITCH + 10;
      put(group.id, cPod, y, h, "block", { group });
      group.pods.forEach((id, i) => {
        put(id, { x: cPod.x + 12 + (i % across) * PITCH, w: TILE }, y + head + Math.floor(i / across) * PITCH, TILE, "tile", { group });
      });
      const middle = y + h / 2 - ROW / 2;
      put(`rule-of/${group.id}`, cRule, middle, ROW, "sum", { group });
      put(`traffic-of/${group.id}`, cTraffic, middle, ROW, "sum", { group });
      group.place = places.get(group.id);
    } else {
      const id = group.pods[0], name = id.slice(4);
      h = group.state === "live" ? ROW : GREY_ROW;
      group.place = put(id, cPod, y, h, "card", { group });
      put(`rule/${name}`, cRule, y + (h - ROW) / 2, ROW, "card", { group });
      put(`traffic/${name}`, cTraffic, y + (h - ROW) / 2, ROW, "card", { group });
    }
    for (const source of group.sources) {
      const span = spans.get(source) || { top: y, bottom: y + h };
      span.bottom = y + h;
      spans.set(source, span);
    }
    y += h + ROW_GAP;
  }
  // Slices stand beside what they list, pushed down where they would meet.
  let free = TOP;
  for (const [id, item] of items) {
    if (item.kind !== "slice" && item.kind !== "gap") continue;
    const span = spans.get(id), h = item.kind === "gap" ? 130 : SLICE;
    const wished = span ? (span.top + span.bottom) / 2 - h / 2 : free;
    const top = Math.max(free, wished);
    const column = item.kind === "gap" ? { x: cPod.x, w: cRule.x + cRule.w - cPod.x } : cSlice;
    put(id, column, item.kind === "gap" ? TOP : top, h, "card");
    free = item.kind === "gap" ? free : top + h + ROW_GAP;
    if (item.kind === "gap") y = Math.max(y, TOP + h + ROW_GAP);
  }
  const height = Math.max(y, free, TOP + SERVICE + ROW_GAP);
  const middle = Math.min((TOP + height - ROW_GAP) / 2 - SERVICE / 2, 260);
  const service = items.has("service") ? put("service", cService, Math.max(TOP, middle), SERVICE, "card") : null;
  // Edges.
  const draw = (id, from, to, edge, more) => {
    if (from && to) edges.set(id, { ...edge, d: from === service && to.x > cSlice.x + cSlice.w && free > TOP ? detour(from, to, cSlice, free) : curve(from, to), x: to.x, y: to.port, from: from.x + from.w, ...more });
  };
  for (const [id, item] of items) {
    if (item.kind !== "edge") continue;
    if (tiled && /^(pod|rule)\//.test(item.source)) continue;
    if (tiled && item.target.startsWith("pod/")) continue;
    draw(id, places.get(item.source), places.get(item.target), item, { chip: item.state === "grey" && !tiled && item.target.startsWith("pod/") });
  }
  if (tiled) {
    for (const group of groups) {
      const edge = { state: group.state, reason: group.reason, code: group.code };
      for (const source of group.sources) {
        draw(`edge/${source}>${group.id}`, places.get(source) || service, places.get(group.id), { ...edge, source, target: group.id }, { chip: group.state === "grey" });
      }
      const first = group.pods[0].slice(4), rule = places.get(`rule-of/${group.id}`), traffic = places.get(`traffic-of/${group.id}`);
      const into = items.get(`edge/pod/${first}>rule/${first}`), out = items.get(`edge/rule/${first}>traffic/${first}`);
      draw(`edge/${group.id}>rule`, places.get(group.id), rule, into || edge, {});
      draw(`edge/${group.id}>traffic`, rule, traffic, out || edge, { flow: group.id });
    }
  }
  return { width, height, tiled, groups, places, edges, heads: [cService, cSlice, cPod, cRule, cTraffic] };
}
