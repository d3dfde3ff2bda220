// Shows /api/v1/status once a second. Everything is set as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);

function fill(id, heads, rows) {
  const table = byId(id);
  table.replaceChildren();
  const line = (cells, kind) => {
    const row = table.insertRow();
    for (const cell of cells) {
      const element = document.createElement(kind);
      element.textContent = cell;
      row.append(element);
    }
  };
  line(heads, "th");
  rows.forEach((cells) => line(cells, "td"));
}

const percent = (bp) => `${bp / 100}%`;
const ms = (value) => (value === null ? "" : `${value.toFixed(1)} ms`);
const pairsOf = (object) => Object.entries(object).map(([k, v]) => `${k} ${v}`).join(", ");

function show(status) {
  byId("instance").textContent = `${status.instance} ${status.version}, ${status.scheme}://${status.listen}`;
  const killed = Object.entries(status.killed).map(
    ([scope, parts]) => `KILLED ${scope}: ${parts.join(", ")} (${status.notes[scope] || ""})`,
  );
  byId("alert").textContent = [...killed, ...status.problems].join("\n");
  const candidates = status.routes.flatMap((route) =>
    route.candidates.map((c) => [
      `${route.name}/${c.name}`, c.backend, percent(c.effective_weight_bp),
      percent(c.effective_mirror_bp), c.killed.join(", "), c.served, c.rescued, c.mirror_sent,
      c.pairs_journaled, pairsOf(c.legs), ms(c.latency.p50_ms), ms(c.latency.p99_ms),
    ]));
  fill("candidates",
    ["candidate", "backend", "weight", "mirror", "killed", "served", "rescued", "mirrored", "pairs", "legs", "p50", "p99"],
    candidates);
  fill("processes", ["process", "pid", "up", "restarts", "last end"],
    status.processes.map((p) => [p.name, p.pid, p.is_hung ? "HANGS" : p.is_alive ? "yes" : "NO", p.restarts, p.last_end]));
  fill("ledger", ["account", "total", "settled", "under way"],
    status.ledger.map((a) => [a.name, a.total, pairsOf(a.parts), a.open]));
}

async function refresh() {
  const token = sessionStorage.getItem("token");
  try {
    const answer = await fetch("/api/v1/status", {
      headers: token ? { authorization: `Bearer ${token}` } : {},
    });
    byId("login").hidden = answer.status !== 401;
    if (answer.ok) show(await answer.json());
    else byId("alert").textContent = (await answer.json()).error;
  } catch {
    byId("alert").textContent = "The admin API does not answer.";
  }
  setTimeout(refresh, 1000);
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
});
refresh();
