"use strict";
// Between two looks, and how long an answer may take.
const INTERVAL_MS = 2000;
const PATIENCE_MS = 8000;
// Before a certificate ends this is trouble.
const RENEWAL_S = 60 * 86400;
const byId = (id) => document.getElementById(id);

function row(cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement("td");
    box.textContent = cell;
    line.append(box);
  }
  return line;
}

const percent = (score) => (score == null ? "–" : (100 * score).toFixed(2) + " %");

/// It comes rounded up to these four decimals; with fewer it could be less than what was spent.
const epsilon = (spent) => spent.toFixed(4);

/// What was expected of all devices, and of those that were counted.
function cosine(round) {
  const counted = round.counted_cosine == null ? "" : `, counted ${round.counted_cosine.toFixed(3)}`;
  return round.expected_cosine.toFixed(3) + counted + (round.forced ? ", forced" : "");
}

function roundRow(round) {
  const refused = Object.entries(round.refused ?? round.tally.refused).map(([why, n]) => `${n} ${why}`).join(", ");
  const end = round.phase === "aborted" ? `aborted: ${round.reason}` : round.phase === "published" ? `published as ${round.version}` : round.phase;
  const score = round.score_after == null ? "–" : `${percent(round.score_before)} → ${percent(round.score_after)}`;
  return row([round.id, end, `${round.tally.counted} of ${round.task.minimum_cohort} needed`, refused || "none",
    cosine(round), score, `z ${round.task.noise_multiplier}, ${round.task.dimension} numbers`]);
}

function modelRow(model) {
  return row([model.version, model.origin, model.standing, model.installed, model.failed]);
}

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

/// Points joined by a line; `label` names a point's height, `tick` one at the side. Hollow points are not joined.
function chart(id, points, label, tick, nothing) {
  const box = byId(id);
  box.replaceChildren();
  if (points.length === 0) {
    box.append(svg("text", { x: 12, y: 100 }, nothing));
    return;
  }
  const heights = points.map((point) => point.height);
  const margin = 0.1 * (Math.max(...heights) - Math.min(...heights)) || 0.002;
  const low = Math.max(0, Math.min(...heights) - margin), high = Math.max(...heights) + margin;
  const x = (index) => 70 + (index * 380) / Math.max(points.length - 1, 1);
  const y = (height) => 170 - (150 * (height - low)) / (high - low);
  for (const height of [low, (low + high) / 2, high]) {
    box.append(svg("line", { x1: 70, x2: 450, y1: y(height), y2: y(height) }));
    box.append(svg("text", { x: 8, y: y(height) + 4 }, tick(height)));
  }
  const joined = points.map((point, index) => [point, index]).filter(([point]) => !point.hollow);
  box.append(svg("path", { d: joined.map(([point, index], n) => `${n ? "L" : "M"}${x(index)} ${y(point.height)}`).join("") }));
  const every = Math.ceil(points.length / 12);
  points.forEach((point, index) => {
    const dot = svg("circle", { cx: x(index), cy: y(point.height), r: 5, class: point.hollow ? "held" : "" });
    dot.append(svg("title", {}, `${point.name}: ${label(point.height)}`));
    box.append(dot);
    if (index % every === 0) box.append(svg("text", { x: x(index), y: 194, "text-anchor": "middle" }, point.name));
  });
}

function accuracy(rounds) {
  const judged = rounds.filter((round) => round.score_after != null);
  if (judged.length === 0) return [];
  const start = { name: "start", height: judged[0].score_before, hollow: false };
  return [start, ...judged.map((round) => ({ name: String(round.id), height: round.score_after, hollow: round.phase !== "published" }))];
}

function spent(status) {
  if (status.rounds.length === 0) return [];
  const after = status.rounds.map((round, index) => ({ name: String(round.id), height: status.epsilon_by_round[index], hollow: false }));
  return [{ name: "start", height: 0, hollow: false }, ...after];
}

/// What does not work, a line each.
function trouble(status) {
  const lines = [];
  const down = status.workers - status.workers_connected;
  if (down > 0) lines.push(`${down} of ${status.workers} connections to the broker are down.`);
  if (status.broker_refused_now > 0) lines.push(`The broker refuses ${status.broker_refused_now} subscriptions or messages; the log says why.`);
  if (status.rival_statements > 0) lines.push("Another server announces with this fleet's key. Stop one of them, and start the other one anew.");
  if (status.lost) {
    lines.push(`This database is older than what was announced, and mirrors ignore its next rounds and versions. Stop the server, and aggregator restore --rounds-above ${status.lost.round} --versions-above ${status.lost.version}.`);
  }
  if (status.certificate_end != null && status.certificate_end - status.now < RENEWAL_S) {
    lines.push(`The aggregator's certificate ends on ${new Date(1000 * status.certificate_end).toLocaleDateString()}; the broker's and the mirrors' are mostly as old.`);
  }
  if (status.decisions_failing) lines.push(`A decision fails, and is tried again every second: ${status.decisions_failing}`);
  return lines.join("\n");
}

/// Read aloud when it changes, and only then.
function showTrouble(text) {
  if (byId("trouble").textContent === text) return;
  byId("trouble").textContent = text;
  byId("trouble").hidden = text === "";
}

async function refresh() {
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(await answer.text());
    const status = await answer.json();
    byId("when").textContent = new Date(1000 * status.now).toLocaleString();
    byId("when").className = "";
    showTrouble(trouble(status));
    byId("enrolled").textContent = status.enrolled;
    byId("online").textContent = status.online ?? "–";
    byId("revoked").textContent = status.revoked;
    byId("version").textContent = status.models.at(-1)?.version ?? "–";
    byId("epsilon").textContent = status.epsilon == null ? "0" : epsilon(status.epsilon);
    const unknown = status.unknown_rounds ? ` Up to ${status.unknown_rounds} rounds from before the restore are not known here.` : "";
    byId("privacy").textContent = (status.privacy ?? "No update has been counted.") + unknown;
    byId("rounds").replaceChildren(...status.rounds.toReversed().map(roundRow));
    byId("models").replaceChildren(...status.models.toReversed().map(modelRow));
    chart("accuracy", accuracy(status.rounds), percent, percent, "No round has been judged yet.");
    chart("spent", spent(status), epsilon, (height) => height.toFixed(height < 10 ? 2 : 0), "No round yet.");
  } catch (error) {
    byId("when").className = "bad";
    showTrouble(`No answer from the aggregator, so what is shown here is old: ${error.message}`);
  }
  setTimeout(refresh, INTERVAL_MS);
}

refresh();
