// Draws the ramps of /api/v1/status: the way, the place, the gates and their evidence.
// Everything is set as text, never as HTML.
"use strict";

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

const OUTCOMES = { promote: "good", halt: "bad" };
const PHASES = { promoted: "good", rolled_back: "bad", paused: "wait" };
const share = (value, digits) => `${value < 0 ? "" : "+"}${(value * 100).toFixed(digits)}%`;

// A time as a person says it.
function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

function way(ramp) {
  const list = element("ol", "", "way");
  ["shadow", ...ramp.weights_bp.map((bp) => `${bp / 100}%`)].forEach((place, number) => {
    let name = number < ramp.step || ramp.phase === "promoted" ? "passed" : "";
    if (number === ramp.step) name = ramp.phase === "paused" ? "here wait" : "here";
    list.append(element("li", place, ramp.phase === "rolled_back" ? "" : name));
  });
  return list;
}

// Evidence grows by factors: the meter shows its logarithm, full where the gate acts.
function evidence(gate, side) {
  const cell = element("td", "", "number");
  const logE = gate[`log_e_${side}`], most = Math.log(gate.acts_at);
  const meter = element("meter");
  [meter.min, meter.max, meter.value] = [0, most, Math.max(0, Math.min(logE, most))];
  let shown = `${Number(Math.exp(logE).toPrecision(2))}`;
  if (logE > Math.log(1000)) shown = ">1,000";
  if (logE < Math.log(0.01)) shown = "<0.01";
  cell.append(meter, ` ${shown} of ${gate.acts_at}`);
  return cell;
}

function gates(ramp) {
  const table = element("table");
  const head = table.insertRow();
  for (const name of ["gate", "says"]) head.append(element("th", name));
  for (const name of ["pairs", "worse by", "bounds", "may be", "evidence to promote", "evidence to halt"]) {
    head.append(element("th", name, "number"));
  }
  for (const gate of ramp.gates) {
    const row = table.insertRow();
    row.append(element("td", gate.metric), element("td", gate.outcome, OUTCOMES[gate.outcome] || ""));
    const has = gate.mean !== null;
    for (const text of [
      gate.pairs.toLocaleString("en"), has ? share(gate.mean, 2) : "",
      has ? `${share(gate.lower, 1)} to ${share(gate.upper, 1)}` : "", `${gate.margin * 100}%`,
    ]) row.append(element("td", text, "number"));
    row.append(evidence(gate, "promote"), evidence(gate, "halt"));
  }
  const wide = element("div", "", "wide");
  wide.append(table);
  return wide;
}

function notes(ramp) {
  const found = [];
  if (ramp.elapsed_s !== null) {
    const wait = ramp.wait_s ? `, ${span(ramp.wait_s)} to wait` : "";
    let times = `${ramp.pairs.toLocaleString("en")} pairs (at least ${ramp.min_pairs.toLocaleString("en")}), `
      + `${span(ramp.elapsed_s)} in this step${wait}`;
    if (ramp.expires_s !== null) times += `; rolled back in ${span(ramp.expires_s)} unless it passes`;
    if (ramp.approval === "manual") times += "; when it passes, an operator must promote it";
    found.push(element("p", times));
  }
  if (ramp.waits && ramp.waits !== ramp.why) found.push(element("p", `waits: ${ramp.waits}`, "wait"));
  else if (ramp.why) found.push(element("p", `because: ${ramp.why}${ramp.who ? `, by ${ramp.who}` : ""}`));
  if (ramp.trouble) found.push(element("p", `trouble: ${ramp.trouble}`, "bad"));
  return found;
}

function drawRamps(routes) {
  const under = routes.flatMap((route) => route.candidates
    .filter((c) => c.ramp && c.ramp.phase !== "idle")
    .map((c) => {
      const article = element("article", "", "ramp");
      const header = element("header");
      const words = c.ramp.words.replace("_", " ");
      header.append(element("h3", `${route.name}/${c.name}`),
        element("span", words, PHASES[c.ramp.phase] || ""));
      article.append(header, way(c.ramp), ...notes(c.ramp));
      if (c.ramp.gates.length) article.append(gates(c.ramp));
      if (c.ramp.judged_by) {
        const since = `unchanged for ${span(c.ramp.judged_s)}`;
        article.append(element("p", `as ${c.ramp.judged_by} judges, which leads; ${since}`));
      }
      return article;
    }));
  document.getElementById("ramps").replaceChildren(...under);
  document.getElementById("ramps-section").hidden = !under.length;
}
