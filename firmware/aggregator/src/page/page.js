"use strict";
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

function roundRow(round) {
  const refused = Object.entries(round.refused ?? round.tally.refused).map(([why, n]) => `${n} ${why}`).join(", ");
  const end = round.phase === "aborted" ? `aborted: ${round.reason}` : round.phase === "published" ? `published as ${round.version}` : round.phase;
  const score = round.score_after == null ? "–" : `${percent(round.score_before)} → ${percent(round.score_after)}`;
  return row([round.id, end, `${round.tally.counted} of ${round.task.minimum_cohort} needed`, refused || "none",
    round.expected_cosine.toFixed(3) + (round.forced ? ", forced" : ""), score, `z ${round.task.noise_multiplier}, ${round.task.dimension} numbers`]);
}

function modelRow(model) {
  const rollout = model.rollout === "running" ? `stage ${model.stage + 1}` : model.rollout === "stopped" ? `stopped: ${model.reason}` : model.rollout;
  return row([model.version, model.origin, rollout, model.installed, model.failed]);
}

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

function chart(rounds) {
  const judged = rounds.filter((round) => round.score_after != null);
  const box = byId("chart");
  box.replaceChildren();
  if (judged.length === 0) {
    box.append(svg("text", { x: 20, y: 100 }, "No round has been judged yet."));
    return;
  }
  const points = [{ id: 0, score: judged[0].score_before, shipped: true },
    ...judged.map((round) => ({ id: round.id, score: round.score_after, shipped: round.phase === "published" }))];
  const scores = points.map((point) => point.score);
  const low = Math.min(...scores) - 0.002, high = Math.max(...scores) + 0.002;
  const x = (index) => 70 + (index * 540) / Math.max(points.length - 1, 1);
  const y = (score) => 170 - (150 * (score - low)) / (high - low);
  for (const score of [low, (low + high) / 2, high]) {
    box.append(svg("line", { x1: 70, x2: 610, y1: y(score), y2: y(score) }));
    box.append(svg("text", { x: 8, y: y(score) + 4 }, percent(score)));
  }
  const shipped = points.map((point, index) => [point, index]).filter(([point]) => point.shipped);
  box.append(svg("path", { d: shipped.map(([point, index], n) => `${n ? "L" : "M"}${x(index)} ${y(point.score)}`).join("") }));
  points.forEach((point, index) => {
    box.append(svg("circle", { cx: x(index), cy: y(point.score), r: 5, class: point.shipped ? "" : "held" }));
    box.append(svg("text", { x: x(index) - 4, y: 194 }, point.id === 0 ? "start" : String(point.id)));
  });
}

async function refresh() {
  try {
    const answer = await fetch("/api/status");
    if (!answer.ok) throw new Error(await answer.text());
    const status = await answer.json();
    byId("when").textContent = new Date(1000 * status.now).toLocaleString();
    byId("when").className = "";
    byId("enrolled").textContent = status.enrolled;
    byId("online").textContent = status.online ?? "–";
    byId("revoked").textContent = status.revoked;
    byId("version").textContent = status.models.at(-1)?.version ?? "–";
    byId("epsilon").textContent = status.epsilon == null ? "0" : status.epsilon.toFixed(4);
    byId("privacy").textContent = status.privacy ?? "No device has spent anything.";
    byId("rounds").replaceChildren(...status.rounds.toReversed().map(roundRow));
    byId("models").replaceChildren(...status.models.toReversed().map(modelRow));
    chart(status.rounds);
  } catch (error) {
    byId("when").textContent = `No answer from the aggregator: ${error.message}`;
    byId("when").className = "bad";
  }
}

refresh();
setInterval(refresh, 2000);
