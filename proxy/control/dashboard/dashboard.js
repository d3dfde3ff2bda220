// Shows /api/v1/status and the last decisions once a second. Everything is set as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const DECISIONS = 12;

// Fills a table: heads that end with "#" are of numbers; a cell is a text, or [text, class].
function fill(id, heads, rows) {
  const table = byId(id);
  table.replaceChildren();
  const isNumber = heads.map((head) => head.endsWith("#"));
  const line = (cells, kind) => {
    const row = table.insertRow();
    cells.forEach((cell, column) => {
      const [text, name] = Array.isArray(cell) ? cell : [cell, ""];
      row.append(element(kind, text, `${isNumber[column] ? "number " : ""}${name}`.trim()));
    });
  };
  line(heads.map((head) => head.replace("#", "")), "th");
  rows.forEach((cells) => line(cells, "td"));
}

const percent = (bp) => `${bp / 100}%`;
const count = (value) => value.toLocaleString("en");
const ms = (value) => (value === null ? "" : `${value.toFixed(1)} ms`);
const pairsOf = (object) => Object.entries(object).map(([k, v]) => `${k} ${count(v)}`).join(", ");
const sum = (values) => values.reduce((total, value) => total + value, 0);

function traffic(route) {
  const live = sum(route.candidates.map((c) => c.effective_weight_bp));
  const primary = [
    `${route.name}/primary`, route.primary, percent(10000 - live), "", "",
    count(route.routed - sum(route.candidates.map((c) => c.served))), "", "", "",
    pairsOf(route.served), ms(route.latency.p50_ms), ms(route.latency.p99_ms),
  ];
  return [primary, ...route.candidates.map((c) => [
    `${route.name}/${c.name}`, c.backend, percent(c.effective_weight_bp),
    percent(c.effective_mirror_bp), [c.killed.join(", "), "bad"], count(c.served), count(c.rescued),
    count(c.mirror_sent), count(c.pairs_journaled), pairsOf(c.legs), ms(c.latency.p50_ms),
    ms(c.latency.p99_ms),
  ])];
}

function show(status) {
  byId("instance").textContent = `${status.instance} ${status.version}, ${status.scheme}://${status.listen}, `
    + `${count(status.totals.received)} requests`;
  const killed = Object.entries(status.killed).map(
    ([scope, parts]) => `KILLED ${scope}: ${parts.join(", ")} (${status.notes[scope] || ""})`,
  );
  byId("alert").textContent = [...killed, ...status.problems].join("\n");
  drawRamps(status.routes);
  fill("traffic",
    ["leg", "backend", "serves#", "mirror#", "killed", "served#", "rescued#", "mirrored#", "pairs#", "calls ended", "p50#", "p99#"],
    status.routes.flatMap(traffic));
  fill("processes", ["process", "pid#", "up", "restarts#", "last end"],
    status.processes.map((p) => [p.name, p.pid,
      p.is_hung ? ["HANGS", "bad"] : p.is_alive ? ["yes", "good"] : ["NO", "bad"], p.restarts, p.last_end]));
  fill("ledger", ["account", "total#", "settled", "under way#"],
    status.ledger.map((a) => [a.name, count(a.total), pairsOf(a.parts), count(a.open)]));
}

// What was killed, weighed or ramped: a weight is in basis points, the rest are words.
const state = (value) => (typeof value === "number" ? percent(value)
  : [value].flat().join(", ").replace("_", " "));

function showDecisions(found) {
  fill("decisions", ["when", "what", "of", "from", "to", "by", "why"],
    found.decisions.map((d) => [new Date(d.ts_ms).toLocaleTimeString(), d.action.replace("_", " "), d.scope,
      state(d.old), [state(d.new), d.action === "ramp_halt" || d.action === "kill" ? "bad" : ""], d.who, d.reason]));
}

async function refresh() {
  const token = sessionStorage.getItem("token");
  const options = { headers: token ? { authorization: `Bearer ${token}` } : {} };
  try {
    const answer = await fetch("/api/v1/status", options);
    byId("login").hidden = answer.status !== 401;
    if (answer.ok) {
      show(await answer.json());
      const decisions = await fetch(`/api/v1/decisions?limit=${DECISIONS}`, options);
      if (decisions.ok) showDecisions(await decisions.json());
    } else byId("alert").textContent = (await answer.json()).error;
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
