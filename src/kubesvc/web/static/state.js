// What the page knows, and how a message of the feed changes it.

export const MOST_SAMPLES = 48;

export function emptyState() {
  return {
    label: "", key: "", at: 0, uncounted: "", lost: "", gaps: [], live: false,
    items: new Map(), services: new Map(), entries: new Map(), samples: new Map(),
  };
}

// Takes in one message; returns what has changed: {whole, items: Set of ids, services, entries}.
export function apply(state, message) {
  const changed = { whole: Boolean(message.whole), items: new Set(), services: false, entries: false };
  if (message.whole) {
    if (message.key !== state.key) state.samples.clear();
    state.label = message.label || "";
    state.key = message.key || "";
    state.gaps = message.gaps || [];
    for (const table of ["items", "services", "entries"]) state[table].clear();
    changed.services = changed.entries = true;
  }
  if ("lost" in message) state.lost = message.lost;
  if ("uncounted" in message) state.uncounted = message.uncounted;
  if (message.at) state.at = message.at;
  for (const table of ["items", "services", "entries"]) {
    for (const id of message[`${table}Gone`] || []) {
      state[table].delete(id);
      if (table === "items") changed.items.add(id);
      else changed[table] = true;
    }
    for (const [id, value] of Object.entries(message[table] || {})) {
      state[table].set(id, value);
      if (table === "items") changed.items.add(id);
      else changed[table] = true;
    }
  }
  return changed;
}

// Remembers the rate of every counter, for the small curves.
export function sample(state) {
  for (const [id, item] of state.items) {
    if (item.kind !== "traffic" || !item.counted) continue;
    let known = state.samples.get(id);
    if (!known) state.samples.set(id, (known = []));
    known.push(item.rate || 0);
    if (known.length > MOST_SAMPLES) known.shift();
  }
  for (const id of state.samples.keys()) if (!state.items.has(id)) state.samples.delete(id);
}
