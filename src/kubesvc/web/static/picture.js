// Draws the picture: one element for each item, touched only when that item, or its place, has changed.

import { layout } from "./layout.js";
import { labelOf, milliseconds, plural, podWord, rateText, ruleText, shareText, trafficText, where, COLLATOR } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_MOVING = 40;

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Asking a document what it shows costs more than remembering it.
export function setText(element, text) {
  if (element.shown !== text) element.textContent = element.shown = text;
}

function setClass(element, name) {
  if (element.look !== name) element.className = element.look = name;
}

export function structural(ids) {
  for (const id of ids) if (!id.startsWith("traffic")) return true;
  return false;
}

function spark(samples, most, width, height) {
  if (samples.length < 2) return "";
  const step = width / 47, start = width - (samples.length - 1) * step;
  return samples.map((v, i) => `${i ? "L" : "M"}${(start + i * step).toFixed(1)} ${(height - 1.5 - (v / most) * (height - 3)).toFixed(1)}`).join("");
}

export class PictureView {
  constructor(canvas, heads, svg, choose) {
    Object.assign(this, { canvas, heads, svg, choose });
    this.elements = new Map();
    this.paths = new Map();
    this.chips = new Map();
    this.plan = null;
    this.focused = "";
    this.selected = "";
    this.tiled = null;
    canvas.addEventListener("click", (event) => {
      const target = event.target.closest("[data-id]");
      if (target) choose(target.dataset.id);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focusin", (event) => {
      const target = event.target.closest("[data-id]");
      if (target) this.rove(target.dataset.id);
    });
  }

  clear() {
    for (const element of [...this.elements.values(), ...this.chips.values()]) element.remove();
    for (const path of this.paths.values()) path.remove();
    this.elements.clear();
    this.chips.clear();
    this.paths.clear();
    this.tiled = null;
  }

  // changed: ids of items that are new, other or gone; null for all.
  draw(state, changed, width) {
    const structure = changed === null || !this.plan || this.width !== width || structural(changed);
    if (structure) this.arrange(state, changed, width);
    this.numbers(state);
  }

  arrange(state, changed, width) {
    const plan = layout(state.items, width), seen = new Set();
    if (this.tiled !== plan.tiled) this.clear();
    const all = changed === null || this.tiled !== plan.tiled;
    Object.assign(this, { plan, width, tiled: plan.tiled });
    this.canvas.style.width = `${plan.width}px`;
    this.canvas.style.height = `${plan.height}px`;
    this.canvas.classList.toggle("tiled", plan.tiled);
    this.svg.setAttribute("viewBox", `0 0 ${plan.width} ${plan.height}`);
    this.svg.setAttribute("width", plan.width);
    this.svg.setAttribute("height", plan.height);
    this.drawHeads(state, plan);
    const into = new Map();
    for (const edge of state.items.values()) {
      if (edge.kind !== "edge") continue;
      if (!into.has(edge.target)) into.set(edge.target, []);
      into.get(edge.target).push(edge);
    }
    for (const [id, place] of plan.places) {
      seen.add(id);
      const item = state.items.get(id) || { kind: place.form };
      let element = this.elements.get(id);
      const fresh = !element;
      if (fresh) {
        element = this.build(id, item, place);
        this.elements.set(id, element);
        this.canvas.append(element);
      }
      const at = `translate(${place.x}px, ${Math.round(place.y)}px)`;
      if (element.dataset.at !== at) { element.dataset.at = at; element.style.transform = at; }
      const size = `${place.w}x${place.h}`;
      if (element.dataset.size !== size) {
        element.dataset.size = size;
        element.style.width = `${place.w}px`;
        element.style.height = `${place.h}px`;
      }
      if (fresh || all || changed.has(id) || place.form === "block" || place.form === "sum" || (into.get(id) || []).some((e) => changed.has(`edge/${e.source}>${e.target}`))) {
        this.fill(id, item, place, element, into.get(id) || [], state);
      }
    }
    for (const [id, element] of this.elements) {
      if (seen.has(id)) continue;
      if (element.contains(document.activeElement)) this.refocus = true;
      element.remove();
      this.elements.delete(id);
    }
    this.drawEdges(plan);
    if (!this.elements.has(this.focused)) this.rove("service");
    if (this.refocus) { this.refocus = false; this.elements.get("service")?.focus(); }
  }

  drawHeads(state, plan) {
    const service = state.items.get("service") || {};
    const on = service.rulesOn || [];
    const words = [["Service", "who is asked"], ["Slices", "who is listed"], ["Pods", "who answers"],
      ["Rules", on.length ? `on ${on.length > 3 ? plural(on.length, "node") : on.join(", ")}` : "as planned"],
      ["Connections", state.uncounted ? "not counted" : (state.items.get("traffic") || {}).partial ? "so far, at least" : "so far"]];
    while (this.heads.children.length < words.length) this.heads.append(make("p", "head"));
    words.forEach(([word, text], i) => {
      const head = this.heads.children[i];
      if (!head.firstChild) head.append(make("b"), make("span"));
      setText(head.firstChild, word);
      setText(head.lastChild, text);
      head.style.transform = `translateX(${plan.heads[i].x}px)`;
      head.style.width = `${plan.heads[i].w}px`;
    });
  }

  build(id, item, place) {
    const passive = place.form === "block" || place.form === "sum";
    const element = make(passive ? "div" : "button", "");
    element.parts = {};
    if (!passive) {
      element.type = "button";
      element.dataset.id = id;
      element.tabIndex = -1;
    }
    const part = (name, tag, className) => {
      const made = make(tag, className);
      element.parts[name] = made;
      element.append(made);
      return made;
    };
    if (place.form === "tile") return element;
    if (place.form === "block") { part("title", "p", "block-title"); 
      const legend = part("legend", "p", "block-legend");
      legend.append("idle");
      for (let heat = 0; heat < 5; heat++) legend.append(Object.assign(make("i", "swatch"), { style: `background: var(--heat${heat})` }));
      legend.append("busy");
      return element;
    }
    part("title", "span", "title");
    if (item.kind === "service") {
      part("type", "span", "badge");
      part("address", "span", "mono");
      part("ports", "span", "mono");
      part("selector", "span", "sub");
    } else if (item.kind === "slice") {
      part("sub", "span", "sub");
      part("bar", "span", "bar").append(make("i"));
      part("count", "span", "sub");
    } else if (item.kind === "traffic" || (item.kind === "sum" && id.startsWith("traffic"))) {
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("class", "spark");
      svg.setAttribute("viewBox", "0 0 80 24");
      svg.setAttribute("aria-hidden", "true");
      svg.append(document.createElementNS(SVG, "path"));
      element.append(svg);
      element.parts.spark = svg.firstChild;
      part("sub", "span", "sub");
    } else {
      part("sub", "span", "sub");
    }
    return element;
  }

  fill(id, item, place, element, into, state) {
    const p = element.parts, group = place.group;
    const chosen = id === this.selected ? " chosen" : "";
    if (place.form === "block") {
      setClass(element, `block ${group.state}`);
      element.setAttribute("aria-hidden", "true");
      const count = group.pods.length;
      p.legend.hidden = group.state !== "live" || Boolean(state.uncounted);
      setText(p.title, group.state === "live" ? `${plural(count, "Pod")} ${count === 1 ? "takes" : "take"} traffic` : `${plural(count, "Pod")} out: ${group.reason || "not listed"}`);
      return;
    }
    if (place.form === "sum") {
      element.setAttribute("aria-hidden", "true");
      const first = state.items.get(`rule/${group.pods[0].slice(4)}`) || {};
      const ruled = (first.fronts || []).length > 0;
      setClass(element, `card ${id.startsWith("rule") ? "rule" : "traffic"} ${ruled ? "live" : group.state === "live" ? "unknown" : "grey"}`);
      if (id.startsWith("rule")) {
        setText(p.title, ruleText(first));
        setText(p.sub, ruled ? shareText(first) : state.items.get("service")?.address === "headless" ? "headless: none needed" : "none leads there");
      }
      return;
    }
    element.setAttribute("aria-label", labelOf(id, item, into));
    const grey = into.find((e) => e.state !== "live");
    const live = into.some((e) => e.state === "live");
    const look = live || !into.length ? "live" : (grey || {}).state || "live";
    if (place.form === "tile") {
      setClass(element, `tile ${item.state}${chosen}`);
      element.title = `${item.name}: ${grey && !live ? grey.reason : podWord(item)}`;
      return;
    }
    setClass(element, `card ${item.kind} ${item.kind === "service" ? item.status : item.kind === "pod" && item.state === "leaving" ? "leaving" : look}${chosen}`);
    if (item.kind === "service") {
      setText(p.title, item.name);
      setText(p.type, item.type);
      setText(p.address, item.address);
      setText(p.ports, (item.ports || []).join(", ") || "no ports");
      setText(p.selector, (item.selector || []).join(", ") || "no selector");
    } else if (item.kind === "slice") {
      setText(p.title, item.name);
      setText(p.sub, [item.family, ...(item.ports || [])].join(" · "));
      p.bar.firstChild.style.transform = `scaleX(${item.total ? (item.ready || 0) / item.total : 0})`;
      setText(p.count, `${item.ready || 0} of ${item.total || 0} ready`);
    } else if (item.kind === "pod") {
      setText(p.title, item.name);
      setText(p.sub, look === "live" ? where(item) : (grey || {}).reason || where(item));
      element.title = look === "live" ? "" : (grey || {}).reason || "";
    } else if (item.kind === "rule") {
      setText(p.title, ruleText(item));
      setText(p.sub, shareText(item) || (look === "unknown" ? (grey || {}).reason || "" : "none leads there"));
    } else if (item.kind === "gap") {
      setText(p.title, "Nobody answers");
      setText(p.sub, item.text);
    }
  }

  drawEdges(plan) {
    const seen = new Set();
    for (const [id, edge] of plan.edges) {
      seen.add(id);
      let path = this.paths.get(id);
      if (!path) {
        path = document.createElementNS(SVG, "path");
        path.append(document.createElementNS(SVG, "title"));
        this.paths.set(id, path);
        this.svg.append(path);
      }
      if (path.drawn !== edge.d) { path.drawn = edge.d; path.setAttribute("d", edge.d); }
      const look = `edge ${edge.state}`;
      if (path.look !== look) { path.look = look; path.setAttribute("class", look); path.moving = false; }
      if (path.reason !== edge.reason) { path.reason = edge.reason; path.firstChild.textContent = edge.reason || ""; }
      if (edge.chip && edge.code) {
        seen.add(`chip/${id}`);
        let chip = this.chips.get(id);
        if (!chip) {
          chip = make("span", "chip");
          chip.setAttribute("aria-hidden", "true");
          this.chips.set(id, chip);
          this.canvas.append(chip);
        }
        setText(chip, edge.code);
        chip.title = edge.reason || "";
        chip.style.transform = `translate(${Math.round(edge.x)}px, ${Math.round(edge.y)}px) translate(calc(-100% - 3px), -50%)`;
      }
    }
    for (const [id, path] of this.paths) if (!seen.has(id)) { path.remove(); this.paths.delete(id); }
    for (const [id, chip] of this.chips) if (!seen.has(`chip/${id}`)) { chip.remove(); this.chips.delete(id); }
  }

  // Numbers of connections, curves, and what moves along the edges.
  numbers(state) {
    if (!this.plan) return;
    let most = 1, moving = 0;
    if (!this.plan.tiled) for (const samples of state.samples.values()) for (const v of samples) if (v > most) most = v;
    const still = this.paths.size > MOST_MOVING * 4;
    const flow = (id, rate) => {
      const path = this.paths.get(id);
      if (!path || !path.look || !path.look.includes("live")) return;
      const moves = rate > 0 && !still && ++moving <= MOST_MOVING;
      if (path.moving !== moves) { path.moving = moves; path.classList.toggle("moving", moves); }
    };
    if (this.plan.tiled) {
      for (const group of this.plan.groups) {
        let rate = 0, total = 0, counted = false;
        for (const pod of group.pods) {
          const item = state.items.get(`traffic/${pod.slice(4)}`);
          const tile = this.elements.get(pod);
          if (!item || !tile) continue;
          counted = counted || Boolean(item.counted);
          rate += item.rate || 0;
          total += item.total || 0;
          const heat = item.rate ? Math.min(4, 1 + Math.floor(Math.log2(1 + item.rate))) : 0;
          if (tile.heat !== heat) { tile.heat = heat; tile.dataset.heat = heat; }
        }
        const element = this.elements.get(`traffic-of/${group.id}`);
        if (element) {
          setText(element.parts.title, counted ? rateText(rate) : "not counted");
          setText(element.parts.sub, counted ? `${total.toLocaleString("en")} so far` : "");
          element.parts.spark.parentNode.style.display = "none";
        }
        flow(`edge/${group.id}>traffic`, rate);
        flow(`edge/${group.id}>rule`, rate);
        for (const source of group.sources) flow(`edge/${source}>${group.id}`, rate);
      }
    } else {
      for (const [id, item] of state.items) {
        if (item.kind !== "traffic" || id === "traffic") continue;
        const element = this.elements.get(id), name = id.slice(8);
        if (!element) continue;
        setText(element.parts.title, item.counted ? rateText(item.rate || 0) : "not counted");
        setText(element.parts.sub, item.counted ? `${(item.total || 0).toLocaleString("en")} so far` : "");
        const d = item.counted ? spark(state.samples.get(id) || [], most, 80, 24) : "";
        if (element.curve !== d) { element.curve = d; element.parts.spark.setAttribute("d", d); }
        flow(`edge/rule/${name}>${id}`, item.rate || 0);
        flow(`edge/pod/${name}>rule/${name}`, item.rate || 0);
        const group = this.plan.places.get(`pod/${name}`)?.group;
        for (const source of group ? group.sources : []) flow(`edge/${source}>pod/${name}`, item.rate || 0);
      }
    }
    const all = state.items.get("traffic");
    for (const [id, item] of state.items) if (item.kind === "slice") flow(`edge/service>${id}`, all && item.ready ? all.rate || 0 : 0);
  }

  // One thing of the picture at a time can be reached by Tab; arrows move on from it.
  rove(id) {
    this.elements.get(this.focused)?.setAttribute("tabindex", "-1");
    this.focused = id;
    this.elements.get(id)?.setAttribute("tabindex", "0");
  }

  key(event) {
    const from = this.plan?.places.get(event.target.dataset?.id);
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!from || !way || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    let best = null, least = Infinity;
    const cx = from.x + from.w / 2, cy = from.y + from.h / 2;
    for (const [id, place] of this.plan.places) {
      if (place === from || place.form === "block" || place.form === "sum") continue;
      const dx = place.x + place.w / 2 - cx, dy = place.y + place.h / 2 - cy;
      const ahead = way[0] ? dx * way[0] : dy * way[1], aside = Math.abs(way[0] ? dy : dx);
      if (ahead <= 4) continue;
      const cost = ahead + aside * (way[0] ? 1.4 : 6);
      if (cost < least) { least = cost; best = id; }
    }
    if (best) {
      const element = this.elements.get(best);
      element.focus({ preventScroll: true });
      element.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  select(id) {
    for (const [which, is] of [[this.selected, false], [id, true]]) {
      const element = this.elements.get(which);
      if (element) setClass(element, element.look.replace(" chosen", "") + (is ? " chosen" : ""));
    }
    this.selected = id;
  }
}

// ---------------------------------------------------------------- the same as a table

const COLUMNS = ["Pod", "Address", "Node", "Slice", "State", "Why", "Rule", "Connections", "Per second"];

export class TableView {
  constructor(box) {
    this.box = box;
    this.rows = new Map();
    const table = make("table"), head = make("thead"), row = make("tr");
    this.caption = make("caption");
    for (const word of COLUMNS) {
      const cell = make("th", word === "Connections" || word === "Per second" ? "number" : "", word);
      cell.scope = "col";
      row.append(cell);
    }
    head.append(row);
    this.body = make("tbody");
    table.append(this.caption, head, this.body);
    box.append(table);
  }

  draw(state) {
    const service = state.items.get("service");
    setText(this.caption, service ? `Pods of svc/${service.name}` : "");
    const into = new Map();
    for (const edge of state.items.values()) {
      if (edge.kind === "edge" && edge.target.startsWith("pod/")) {
        if (!into.has(edge.target)) into.set(edge.target, []);
        into.get(edge.target).push(edge);
      }
    }
    const ids = [...state.items.keys()].filter((id) => id.startsWith("pod/")).sort(COLLATOR.compare);
    const seen = new Set(ids);
    for (const [id, row] of this.rows) if (!seen.has(id)) { row.remove(); this.rows.delete(id); }
    let before = null;
    for (const id of ids) {
      const pod = state.items.get(id), name = id.slice(4), edges = into.get(id) || [];
      const rule = state.items.get(`rule/${name}`) || {}, traffic = state.items.get(`traffic/${name}`) || {};
      let row = this.rows.get(id);
      if (!row) {
        row = make("tr");
        const cell = make("th");
        cell.scope = "row";
        row.append(cell);
        for (let i = 1; i < COLUMNS.length; i++) row.append(make("td", i > 6 ? "number" : ""));
        this.rows.set(id, row);
      }
      const place = before ? before.nextSibling : this.body.firstChild;
      if (place !== row) this.body.insertBefore(row, place);
      before = row;
      setClass(row, pod.state);
      const slices = edges.map((e) => e.source).filter((s) => s !== "service").map((s) => s.slice(6)).join(", ");
      const grey = edges.find((e) => e.state !== "live");
      const values = [name, (pod.addresses || []).join(", ") || "none", pod.node || "none", slices || "none", podWord(pod),
        grey ? grey.reason : "", ruleText(rule), traffic.counted ? (traffic.total || 0).toLocaleString("en") : "not counted", traffic.counted ? (traffic.rate || 0).toFixed(1) : ""];
      values.forEach((value, i) => setText(row.children[i], value));
    }
  }
}

// ---------------------------------------------------------------- details

export function detailsOf(id, state) {
  const item = state.items.get(id);
  if (!item) return null;
  const edges = [...state.items.values()].filter((e) => e.kind === "edge" && (e.target === id || e.source === id));
  const facts = [], grey = edges.find((e) => e.target === id && e.state !== "live" && e.reason);
  let title = item.name || id, finding = item.finding || null;
  if (item.kind === "service") {
    facts.push(["Is", item.about], ["Selector", (item.selector || []).join(", ") || "none"]);
    for (const link of item.chain || []) facts.push([link.name[0].toUpperCase() + link.name.slice(1), `${{ ok: "✓", broken: "✗", unknown: "?" }[link.state]} ${link.text}`]);
    finding = (item.findings || [])[0] || null;
    title = `Service ${item.name}`;
  } else if (item.kind === "slice") {
    facts.push(["Family", item.family], ["Ports", (item.ports || []).join(", ") || "none"], ["Endpoints", `${item.ready || 0} of ${item.total || 0} ready`]);
    title = `EndpointSlice ${item.name}`;
  } else if (item.kind === "pod") {
    const rule = state.items.get(`rule/${item.name}`), traffic = state.items.get(`traffic/${item.name}`);
    facts.push(["Is at", where(item)], ["State", podWord(item)], ["Rule", rule ? [ruleText(rule), shareText(rule)].filter(Boolean).join(", ") : "none"], ["Connections", trafficText(traffic)]);
    title = `Pod ${item.name}`;
  } else if (item.kind === "rule") {
    facts.push(["Leads", ruleText(item)], ["Chance", shareText(item) || "none"]);
    title = `Rules for ${id.slice(5)}`;
  } else if (item.kind === "traffic") {
    facts.push(["Connections", trafficText(item)]);
    title = `Connections to ${id.slice(8)}`;
  } else if (item.kind === "gap") {
    title = "Nobody answers";
  }
  const same = grey && finding && grey.code === finding.code;
  if (grey) facts.unshift([grey.state === "grey" ? "Why grey" : "Why unknown", (same ? finding.text : grey.reason) + (grey.code ? ` (${grey.code})` : "")]);
  if (finding) {
    if (!same) facts.push(["Cause", `${finding.text} (${finding.code})`]);
    for (const seen of finding.seen || []) facts.push(["Seen", seen]);
  }
  return { title, facts, finding };
}

// ---------------------------------------------------------------- timeline

export function entryElement(entry) {
  const element = make("li", entry.what), hops = entry.hops || {};
  const when = make("time", "when", entry.at.slice(11, 23));
  when.dateTime = entry.at;
  const sign = make("span", "sign", entry.what === "joined" ? "+" : "−");
  sign.setAttribute("aria-hidden", "true");
  const what = make("span", "what");
  what.append(make("b", "", entry.pod || entry.address), ` ${entry.what}`, make("span", "quiet mono", ` ${entry.pod ? entry.address : ""}`));
  const cause = make("span", "cause", entry.pod ? entry.cause.replace(`pod/${entry.pod} `, "") : entry.cause);
  if (entry.probe) {
    const probe = make("span", "probe", entry.probe);
    probe.title = entry.probe;
    cause.append(probe);
  }
  const rules = Math.max(0, ...Object.values(hops.rulesMs || {}));
  const parts = [["status-hop", "probe to status", hops.statusMs], ["slice-hop", "to slice", hops.sliceMs], ["rules-hop", "to rules", rules || undefined]].filter(([, , ms]) => ms !== undefined);
  const bar = make("span", "hops");
  if (parts.length) {
    const whole = parts.reduce((sum, [, , ms]) => sum + ms, 0);
    const track = make("span", "track");
    track.setAttribute("aria-hidden", "true");
    for (const [name, , ms] of parts) {
      const part = make("span", `hop ${name}`);
      part.style.flexGrow = Math.max(ms / (whole || 1), 0.02);
      track.append(part);
    }
    bar.append(track, make("span", "sum", milliseconds(hops.totalMs ?? whole)), make("span", "hidden", ` in all: ${parts.map(([, word, ms]) => `${word} ${milliseconds(ms)}`).join(", ")}`));
    bar.title = parts.map(([, word, ms]) => `${word} ${milliseconds(ms)}`).join(", ");
  }
  element.append(when, sign, what, cause, bar);
  return element;
}
