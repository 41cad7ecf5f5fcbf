// The page: listens to the feed, or shows a kept moment, and draws at most once a frame.

import { apply, emptyState, sample } from "./state.js";
import { detailsOf, entryElement, make, setText, structural, PictureView, TableView } from "./picture.js";
import { plural, STATUS_WORDS } from "./words.js";

const FRAME = 36, NUMBERS_MS = 100;
const find = (id) => document.getElementById(id);
const state = emptyState();
const moment = find("moment") ? JSON.parse(find("moment").textContent) : null;
const view = new PictureView(find("canvas"), find("heads"), find("edges"), choose);
const table = new TableView(find("table"));
const pending = { whole: false, items: new Set(), services: false, entries: false };
const entryElements = new Map(), serviceElements = new Map();
let drawnAt = 0, source = null, framed = false, asTable = false, sampledAt = 0, selected = "", said = "";

// ---------------------------------------------------------------- taking in

function take(message) {
  const changed = apply(state, message);
  pending.whole ||= changed.whole;
  pending.services ||= changed.services;
  pending.entries ||= changed.entries;
  for (const id of changed.items) pending.items.add(id);
  ask();
}

function ask() {
  if (!framed) {
    framed = true;
    requestAnimationFrame(frame);
  }
}

// What has changed its place or its state is drawn in the next frame, numbers alone ten times a second: nobody reads
// faster.
function frame(now) {
  framed = false;
  if (!pending.whole && !pending.services && !pending.entries && !structural(pending.items) && now - drawnAt < NUMBERS_MS) return ask();
  drawnAt = now;
  if (now - sampledAt > 500) {
    sampledAt = now;
    sample(state);
  }
  const changed = pending.whole ? null : new Set(pending.items), { services, entries } = pending;
  Object.assign(pending, { whole: false, items: new Set(), services: false, entries: false });
  if (changed === null || changed.size) {
    if (asTable) table.draw(state);
    else view.draw(state, changed, find("figure").clientWidth - FRAME);
    if (changed === null || changed.has("service")) drawVerdict();
    if (selected) drawDetails();
  }
  if (services) drawServices();
  if (entries || changed === null) drawEntries();
  window.framesDrawn = (window.framesDrawn || 0) + 1;
}

function listen(key) {
  source?.close();
  source = new EventSource(`/feed?service=${encodeURIComponent(key)}`);
  source.onmessage = (event) => {
    take(JSON.parse(event.data));
    connected(true);
  };
  source.onerror = () => connected(false, source.readyState === EventSource.CLOSED);
}

function connected(is, refused) {
  state.live = is;
  const text = moment ? `A kept moment: ${new Date(moment.at * 1000).toLocaleString("en-GB", { timeZone: "UTC" })} UTC` : is ? state.lost || "Live" : refused ? "Refused: open the link that kubesvc printed last" : "Not connected; trying again";
  setText(find("connection"), text);
  find("connection").className = `connection ${moment ? "kept" : is && !state.lost ? "on" : "off"}`;
}

function show(key) {
  if (moment) {
    take({ whole: true, label: moment.label, key, uncounted: moment.uncounted, gaps: moment.gaps, at: moment.at, services: moment.services, items: moment.pictures[key] || {}, entries: moment.timelines[key] || {} });
  } else {
    if (key !== state.key) history.pushState(null, "", `#${key}`);
    listen(key);
  }
  closeDetails(false);
}

// ---------------------------------------------------------------- drawing

function drawVerdict() {
  const service = state.items.get("service");
  const [namespace, name] = state.key ? state.key.split("/") : ["", ""];
  setText(find("label"), state.label);
  setText(find("title"), name ? `svc/${name}` : "No Service");
  document.title = service ? `${service.name}: ${STATUS_WORDS[service.status]} · kubesvc` : "kubesvc";
  const status = service ? service.status : "unknown";
  find("status").className = `status ${status}`;
  setText(find("status"), service ? STATUS_WORDS[status] : "");
  setText(find("verdict"), service ? service.verdict : state.key ? `svc/${name} in namespace ${namespace} is gone` : "There is no Service in this cluster yet.");
  const finding = ((service && service.findings) || []).find((f) => f.command);
  find("fix").hidden = !finding || service.status === "healthy";
  if (finding) {
    setText(find("fix-word"), finding.repairs ? "What repairs it" : "What shows more");
    setText(find("fix-command"), finding.command);
  }
  setText(find("namespace"), namespace ? `in namespace ${namespace}` : "");
  const gaps = service ? service.gaps || [] : state.gaps;
  find("gaps").hidden = !gaps.length;
  find("gaps").replaceChildren(...gaps.map((text) => make("li", "", text)));
  for (const [key, element] of serviceElements) markCurrent(element.firstChild, key === state.key);
  const news = service ? `${service.name} ${STATUS_WORDS[status]}: ${service.taking || 0} of ${plural(service.pods || 0, "Pod")} take traffic` : "";
  if (news && news !== said) {
    if (said) tell(news);
    said = news;
  }
}

function markCurrent(button, is) {
  if (is) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function tell(text) {
  find("news").append(make("p", "", text));
  while (find("news").children.length > 5) find("news").firstChild.remove();
}

function drawServices() {
  const wanted = find("filter").value.trim().toLowerCase(), list = find("services");
  const keys = [...state.services.keys()];
  const counts = { broken: 0, unknown: 0, degraded: 0, healthy: 0 };
  for (const s of state.services.values()) counts[s.status]++;
  setText(find("tally"), [counts.broken && `${counts.broken} broken`, counts.unknown && `${counts.unknown} unclear`, counts.degraded && `${counts.degraded} with a flaw`, `${counts.healthy} fine`].filter(Boolean).join(", "));
  const order = { broken: 0, unknown: 1, degraded: 2, healthy: 3 };
  const system = (key) => key.startsWith("kube-system/") || key === "default/kubernetes";
  keys.sort((a, b) => system(a) - system(b) || order[state.services.get(a).status] - order[state.services.get(b).status] || a.localeCompare(b, "en"));
  const shown = keys.filter((key) => key.toLowerCase().includes(wanted)).slice(0, 200);
  for (const [key, element] of serviceElements) if (!shown.includes(key)) { element.remove(); serviceElements.delete(key); }
  let before = null;
  for (const key of shown) {
    const s = state.services.get(key);
    let element = serviceElements.get(key);
    if (!element) {
      element = make("li");
      const button = make("button");
      button.type = "button";
      button.append(make("i", "dot"), make("span", "name"), make("span", "count"), make("span", "namespace"), make("span", "hidden"));
      button.addEventListener("click", () => show(key));
      element.append(button);
      serviceElements.set(key, element);
    }
    const button = element.firstChild, [dot, name, count, namespace, words] = button.children;
    dot.className = `dot ${s.status}`;
    setText(name, s.name);
    setText(count, s.type === "ExternalName" ? "name" : `${s.taking || 0}/${s.pods || 0}`);
    setText(namespace, s.namespace);
    setText(words, STATUS_WORDS[s.status]);
    button.title = s.verdict;
    markCurrent(button, key === state.key);
    const place = before ? before.nextSibling : list.firstChild;
    if (place !== element) list.insertBefore(element, place);
    before = element;
  }
}

function drawEntries() {
  const list = find("entries");
  for (const [id, [element]] of entryElements) if (!state.entries.has(id)) { element.remove(); entryElements.delete(id); }
  let last = null;
  for (const [id, entry] of [...state.entries].sort(([a], [b]) => (a < b ? 1 : -1))) {
    const known = entryElements.get(id);
    let element = known && known[0];
    if (!known || known[1] !== entry) {
      const made = entryElement(entry);
      if (element) element.replaceWith(made);
      element = made;
      entryElements.set(id, [element, entry]);
    }
    const place = last ? last.nextSibling : list.firstChild;
    if (place !== element) list.insertBefore(element, place);
    last = element;
  }
  find("no-entries").hidden = state.entries.size > 0;
}

function choose(id) {
  if (selected === id) return closeDetails(true);
  selected = id;
  view.select(id);
  find("details").hidden = false;
  drawDetails();
}

function drawDetails() {
  const details = detailsOf(selected, state);
  if (!details) return closeDetails(false);
  setText(find("details-title"), details.title);
  const list = make("dl");
  for (const [word, text] of details.facts) list.append(make("dt", "", word), make("dd", "", text));
  const body = find("details-body");
  const parts = [list];
  if (details.finding && details.finding.command) {
    const fix = make("div", "fix"), copy = make("button", "", "Copy");
    copy.type = "button";
    copy.addEventListener("click", () => keep(details.finding.command, copy));
    fix.append(make("span", "quiet", details.finding.repairs ? "What repairs it" : "What shows more"), make("code", "", details.finding.command), copy);
    parts.push(fix);
  }
  const text = JSON.stringify(details);
  if (body.shown !== text) {
    body.shown = text;
    body.replaceChildren(...parts);
  }
}

function closeDetails(back) {
  const id = selected;
  selected = "";
  view.select("");
  find("details").hidden = true;
  find("details-body").shown = "";
  if (back) view.elements.get(id)?.focus();
}

// ---------------------------------------------------------------- doing

async function keep(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(find("theme"), `Theme: ${theme}`);
  try {
    localStorage.setItem("kubesvc-theme", theme);
  } catch { /* a file may have no storage */ }
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "system") + 1) % THEMES.length]);
}

function toggleView() {
  asTable = !asTable;
  find("view").setAttribute("aria-pressed", String(asTable));
  find("figure").hidden = asTable;
  find("table").hidden = !asTable;
  pending.whole = true;
  ask();
}

find("view").addEventListener("click", toggleView);
find("theme").addEventListener("click", nextTheme);
find("help").addEventListener("click", () => find("keys").showModal());
find("details-close").addEventListener("click", () => closeDetails(true));
find("fix-copy").addEventListener("click", (event) => keep(find("fix-command").textContent, event.target));
find("filter").addEventListener("input", drawServices);
find("save").addEventListener("click", () => {
  const link = make("a");
  link.href = `/export?service=${encodeURIComponent(state.key)}`;
  link.download = `kubesvc-${state.key.replace("/", "-") || "picture"}.html`;
  link.click();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || find("keys").open) return;
  const typing = event.target.matches("input");
  if (event.key === "Escape") {
    if (typing) { event.target.value = ""; event.target.blur(); drawServices(); }
    else if (selected) closeDetails(true);
  } else if (typing) return;
  else if (event.key === "/") { event.preventDefault(); find("filter").focus(); }
  else if (event.key === "t") toggleView();
  else if (event.key === "d") nextTheme();
  else if (event.key === "?") find("keys").showModal();
});
new ResizeObserver(() => { if (state.items.size) { pending.whole = true; ask(); } }).observe(find("figure"));
setInterval(() => { if (state.live) { sample(state); sampledAt = performance.now(); for (const id of state.samples.keys()) pending.items.add(id); ask(); } }, 500);

addEventListener("popstate", () => {
  if (!moment) listen(decodeURIComponent(location.hash.slice(1)));
  closeDetails(false);
});

let theme = "system";
try {
  theme = localStorage.getItem("kubesvc-theme") || "system";
} catch { /* a file may have no storage */ }
setTheme(THEMES.includes(theme) ? theme : "system");
if (moment) {
  find("save").hidden = true;
  connected(false);
  show(moment.key);
} else {
  setText(find("connection"), "Connecting");
  listen(decodeURIComponent(location.hash.slice(1)));
}
