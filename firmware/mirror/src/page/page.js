"use strict";

// What the mirror does now: preview, states, timings, settings, the camera's switch. Uses what call.js defines.

// How often the mirror is asked how it is.
const INTERVAL_MS = 1000;
// A longer time without a turn means that this machine slept.
const SLEPT_MS = 15000;

const SILENCE = "It may be stopped; this page keeps asking. Or its address or certificate has changed: look for the address on the mirror, "
  + "or reload this page.";

// What the preview is to whoever does not see it.
const PICTURE = "Camera picture with each body part in its own colour";

const element = (id) => document.getElementById(id);
const preview = element("preview");

let paused = false;
let delivering = false;
let cameraWanted = false;
let changing = false;
let refusal = "";
// Settings and colours do not change while the mirror runs: they are asked for until they came.
let settled = false;
// When the mirror started, in seconds by this machine's clock, and the version that this page is of.
let mirrorStart = 0;
let loadedVersion = null;
// This browser is not paired any more, and the page has something to say about it.
let stays = false;

// Texts are set only when they change: a screen reader would read them again and again.
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function counted(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function make(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A list of names with their texts, and whether each tells of a trouble.
function fillList(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(() => {
      const row = make("div");
      row.append(make("dt"), make("dd"));
      return row;
    }));
  }
  rows.forEach(([name, text, trouble = false], index) => {
    const [term, description] = list.children[index].children;
    setText(term, name);
    setText(description, text);
    description.toggleAttribute("data-trouble", trouble);
  });
}

// Turns of one question, which may be asked again before it is answered. An answer's turn is over once one that was asked for later came.
function turns() {
  let [asked, heard] = [0, 0];
  return () => {
    asked += 1;
    const turn = asked;
    return () => {
      const isOver = turn < heard;
      if (!isOver) heard = turn;
      return !isOver;
    };
  };
}

// Not `disabled`: a button that was just pressed would lose the focus.
function setDisabled(button, isDisabled) {
  button.setAttribute("aria-disabled", String(isDisabled));
}

function onPress(button, work) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") work();
  });
}

// Whether a dialog's question is answered with yes, which is its first button. Browsers of before 2022 may have no dialogs: they ask
// with the same words.
function ask(id) {
  const dialog = element(id);
  if (!dialog.showModal) {
    return Promise.resolve(confirm(Array.from(dialog.querySelectorAll("h3, p:not([hidden])"), (words) => words.textContent).join("\n\n")));
  }
  // Escape leaves the answer of the last time.
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A key that is held, or a double click, presses once: nothing of it answers the question that the press asks, or switches back.
document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
});
document.addEventListener("click", (event) => {
  if (event.detail < 2 || !event.target.closest("dialog, [role=switch]")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

function milliseconds(value) {
  return value < 10 ? value.toFixed(2) : value.toFixed(1);
}

// ---- Preview -------------------------------------------------------------------------------

// The stream is closed while nobody can see it, so that the mirror need not make it.
function updatePreview() {
  const wanted = delivering && !paused && !document.hidden;
  const running = preview.hasAttribute("src");
  if (wanted && !running) {
    preview.src = `/preview.mjpg?${Date.now()}`;
    waitForPicture();
  }
  if (!wanted && running) preview.removeAttribute("src");
  showPreview();
}

function showPreview() {
  const empty = !preview.hasAttribute("src") || preview.naturalWidth === 0;
  preview.toggleAttribute("data-empty", empty);
  preview.alt = empty ? "" : PICTURE;
  element("message").hidden = !empty;
}

// A stream never ends, so there is no event that tells of its first picture.
function waitForPicture() {
  showPreview();
  if (!preview.hasAttribute("src")) return;
  if (preview.naturalWidth === 0) setTimeout(waitForPicture, 100);
  else refusal = "";
}

preview.addEventListener("error", async () => {
  preview.removeAttribute("src");
  showPreview();
  refusal = await whyNoPreview();
});

// An image does not tell why it cannot be had.
async function whyNoPreview() {
  const look = new AbortController();
  try {
    await call("GET", "/preview.mjpg", undefined, { signal: look.signal });
    return "";
  } catch (error) {
    if (error.status !== undefined) return error.message;
    console.warn(error);
    return "";
  } finally {
    look.abort();
  }
}

function showMessage(state) {
  const [title, text] = message(state);
  setText(element("message-title"), title);
  setText(element("message-text"), text);
}

function message(state) {
  // A camera that hangs is closed late.
  const closed = state.camera_active ? "The device is being closed." : "The device is closed.";
  if (state.camera.state === "off") return ["Camera is off", `${state.camera.text}. ${closed}`];
  if (state.camera.state === "lost") return ["No picture from the camera", state.camera.text];
  if (state.camera.state === "ended") return ["End of the file", state.camera.text];
  if (state.model.state === "failed") return ["The mirror cannot see", state.model.text];
  if (state.too_hot_celsius !== null) return ["Cooling down", "The mirror goes on by itself."];
  if (paused) return ["Preview is paused", "The mirror itself goes on."];
  if (refusal) return ["No preview here", refusal];
  return ["One moment", "Waiting for the first picture."];
}

// ---- State ---------------------------------------------------------------------------------

function mood(state) {
  if (state.model.state === "failed") return ["bad", "Cannot see"];
  if (state.camera.state === "lost") return ["bad", "Camera lost"];
  if (state.camera.state === "off") return ["calm", "Camera is off"];
  if (state.too_hot_celsius !== null) return ["warn", "Too hot"];
  if (state.camera.state === "ended") return ["calm", "Ended"];
  if (state.camera.state === "on" && state.model.state === "ready") return ["good", "Running"];
  return ["calm", "Starting"];
}

// What a clock may be off by, and an answer late.
const SAME_START_S = 10;

// A mirror that started anew may have other settings. One of another version has another page, which takes this one's place unless
// somebody paints, reads or answers.
function noteStart(state) {
  const start = Date.now() / 1000 - state.uptime_s;
  if (Math.abs(start - mirrorStart) > SAME_START_S) settled = false;
  mirrorStart = start;
  loadedVersion = loadedVersion || state.version;
  if (loadedVersion !== state.version && !document.querySelector("#editor:not([hidden]), [data-fresh], dialog[open]")) location.reload();
}

function showState(state) {
  noteStart(state);
  const [kind, text] = mood(state);
  element("pill").dataset.mood = kind;
  setText(element("pill"), text);
  const shows = state.camera.state === "on" && state.model.state === "ready";
  delivering = shows && state.too_hot_celsius === null;
  if (cameraWanted && !state.camera_wanted) document.dispatchEvent(new Event("camera-off"));
  cameraWanted = state.camera_wanted;
  showMessage(state);
  updatePreview();
  element("badge").hidden = !state.camera_active;
  showWatching(state.viewers);
  const camera = element("camera");
  setDisabled(camera, changing);
  camera.setAttribute("aria-checked", String(cameraWanted));
  showNotices(state.notices);
  showFigures(state);
  showStages(state.stages);
  showStates(state);
  setText(element("footer"), `Mirror ${state.version}, up for ${duration(state.uptime_s)}`);
}

// This browser is one of them while it shows the preview.
function showWatching(viewers) {
  element("watching").hidden = viewers === 0;
  setText(element("watching"), `Watching now: ${counted(viewers, "browser")}`);
}

function showNotices(notices) {
  const box = element("notices");
  const shown = Array.from(box.children, (child) => child.textContent);
  if (shown.join("\n") === notices.join("\n")) return;
  box.replaceChildren(...notices.map((notice) => make("p", notice)));
}

function showFigures(state) {
  const first = state.first_overlay_ms;
  const memory = state.peak_rss_mib;
  setText(element("people"), String(state.people));
  setText(element("fps"), state.fps.toFixed(1));
  setText(element("first"), first === null ? "–" : `${(first / 1000).toFixed(2)} s`);
  setText(element("memory"), memory === null ? "–" : `${memory.toFixed(0)} MiB`);
}

function duration(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

const STAGES = ["capture", "convert", "infer", "parse", "draw", "flip"];

function stageRow(name) {
  const row = make("tr", undefined, { id: `stage-${name}` });
  const bar = make("div", undefined, { class: name === "capture" ? "bar waiting" : "bar" });
  bar.append(make("span"));
  const cell = make("td", undefined, { "aria-hidden": "true" });
  cell.append(bar);
  const title = name[0].toUpperCase() + name.slice(1);
  row.append(make("th", title, { scope: "row" }), cell);
  row.append(make("td", "–", { class: "number" }), make("td", "–", { class: "number" }));
  return row;
}

function showStages(stages) {
  const body = element("stages");
  if (body.children.length === 0) body.append(...STAGES.map(stageRow));
  // Waiting for a camera is no work: it must not make every other bar small.
  const work = STAGES.filter((name) => name !== "capture");
  const longest = Math.max(1e-3, ...work.map((name) => stages[name].median_ms));
  for (const name of STAGES) {
    const row = element(`stage-${name}`);
    const { median_ms: median, p95_ms: most } = stages[name];
    const share = Math.min(1, median / longest);
    row.querySelector(".bar span").style.width = `${(100 * share).toFixed(1)}%`;
    setText(row.children[2], milliseconds(median));
    setText(row.children[3], milliseconds(most));
  }
}

function showStates(state) {
  const counters = state.counters;
  const pictures = `${counters.parsed} parsed, ${counters.overtaken} overtaken, ${counters.broken} broken`;
  const rows = [
    ["Camera", state.camera.text, state.camera.state === "lost"],
    ["Source", state.source || "–", false],
    ["Vision network", state.model.text, state.model.state === "failed"],
    ["Display", state.display.text, state.display.state === "missing"],
    ["Pictures", pictures, false],
  ];
  if (state.too_hot_celsius !== null) {
    rows.push(["Temperature", `${state.too_hot_celsius.toFixed(0)} °C`, true]);
  }
  if (counters.restarts > 0) rows.push(["Restarted parts", String(counters.restarts), false]);
  fillList(element("states"), rows);
}

function showSilence() {
  delivering = false;
  element("pill").dataset.mood = "bad";
  setText(element("pill"), "No answer");
  setText(element("message-title"), "The mirror does not answer");
  setText(element("message-text"), SILENCE);
  setDisabled(element("camera"), true);
  element("badge").hidden = true;
  showWatching(0);
  updatePreview();
}

// After whatever else hears of it: an open picture is put away first.
document.addEventListener("unpaired", () => queueMicrotask(() => {
  if (!stays) location.reload();
}));

const stateTurn = turns();

async function refresh() {
  const isInTurn = stateTurn();
  try {
    const state = await call("GET", "/api/state");
    if (isInTurn()) showState(state);
  } catch (error) {
    console.warn(error);
    if (isInTurn()) showSilence();
  }
}

let turn = Date.now();

async function keepFresh() {
  // The mirror has ended the stream of a sleeper, and an image does not tell so.
  if (Date.now() - turn > SLEPT_MS) preview.removeAttribute("src");
  turn = Date.now();
  if (!document.hidden) await refresh();
  if (!document.hidden && !settled) await refreshSettings();
  setTimeout(keepFresh, INTERVAL_MS);
}

// ---- Settings and colours ------------------------------------------------------------------

async function showSettings() {
  const { settings, parts } = await call("GET", "/api/settings");
  element("settings").replaceChildren(...settings.map(({ key, value, origin }) => {
    const row = make("tr");
    const name = make("th", undefined, { scope: "row" });
    name.append(make("code", key));
    const content = make("td");
    content.append(make("code", value));
    row.append(name, content, make("td", origin));
    return row;
  }));
  element("parts").replaceChildren(...pairs(parts).map(partItem));
  settled = true;
}

async function refreshSettings() {
  try {
    await showSettings();
  } catch (error) {
    console.warn(error);
  }
}

// "lower_arm_left" and "lower_arm_right" are one line: a name with two colours.
function pairs(parts) {
  const found = new Map();
  for (const { name, colour } of parts) {
    const [, base, side] = name.match(/^(.*?)(?:_(left|right))?$/);
    if (!found.has(base)) found.set(base, []);
    found.get(base).push({ letter: side ? side[0].toUpperCase() : "", colour });
  }
  return Array.from(found);
}

function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

// Black or white, whichever is told better from this colour: at a relative luminance (WCAG) of 0.179 both are told alike.
function inkOn(colour) {
  const [red, green, blue] = rgb(colour).map((value) => (value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

function partItem([base, colours]) {
  const item = make("li");
  for (const { letter, colour } of colours) {
    const patch = make("b", letter, { "aria-hidden": "true" });
    patch.style.background = colour;
    patch.style.color = inkOn(colour);
    item.append(patch);
  }
  const words = base.replaceAll("_", " ");
  item.append(make("span", words[0].toUpperCase() + words.slice(1)));
  return item;
}

// ---- Controls ------------------------------------------------------------------------------

onPress(element("camera"), async () => {
  changing = true;
  setDisabled(element("camera"), true);
  element("camera").setAttribute("aria-busy", "true");
  setText(element("camera-trouble"), "");
  try {
    const { remembered } = await call("POST", "/api/camera", { on: !cameraWanted }, { signal: within(PATIENCE_MS) });
    if (!remembered) setText(element("camera-trouble"), "This holds until the mirror’s next start only.");
  } catch (error) {
    setText(element("camera-trouble"), `The mirror did not confirm it (${error.message}). The switch shows what holds.`);
  }
  changing = false;
  element("camera").removeAttribute("aria-busy");
  await refresh();
});

element("pause").addEventListener("click", async () => {
  paused = !paused;
  element("pause").setAttribute("aria-pressed", String(paused));
  updatePreview();
  await refresh();
});

// On a telephone what is looked up seldom would keep the rest far below.
for (const card of document.querySelectorAll(".aside details")) card.open = matchMedia("(min-width: 52rem)").matches;

document.addEventListener("visibilitychange", () => {
  updatePreview();
  if (!document.hidden) refresh();
});

keepFresh();
