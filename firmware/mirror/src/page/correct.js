"use strict";

// The editor of a corrected picture: a mask of parts over a frozen picture. Uses what call.js, page.js and learn.js
// define. A mask has one byte a pixel; every change keeps the pixels it replaced, for undo.

// Bytes of masks that the steps back keep, and those forward with them. The newest step is kept whatever it has.
const UNDO_BYTES = 16 << 20;

const editor = {
  // Whether the mirror was asked to save it and did not answer.
  id: null, opened: 0, unanswered: false, width: 0, height: 0,
  labels: null, picture: null, shown: null,
  tool: "brush", part: 3, size: 14,
  undo: [], redo: [], before: null, last: null, keyboard: null, pointer: null,
};

// The parts' numbers begin with it.
const NOBODY = { name: "nobody", colour: "#000000" };

let partColours = [];
// A picture that was frozen and is not on the page yet.
let opening = null;

const canvas = element("paint");
const context = canvas.getContext("2d");

// ---- Drawing -------------------------------------------------------------------------------

// Repaints the rows and columns that changed.
function repaint(left, top, right, bottom) {
  const { width, height, labels, picture, shown } = editor;
  const from = [Math.max(0, left), Math.max(0, top)];
  const to = [Math.min(width, right), Math.min(height, bottom)];
  const strength = Number(element("strength").value) / 100;
  for (let y = from[1]; y < to[1]; y += 1) {
    for (let x = from[0]; x < to[0]; x += 1) {
      const at = y * width + x;
      const share = labels[at] === 0 ? 0 : strength;
      const colour = partColours[labels[at]];
      for (let c = 0; c < 3; c += 1) {
        shown.data[4 * at + c] = picture.data[4 * at + c] * (1 - share) + colour[c] * share;
      }
    }
  }
  context.putImageData(shown, 0, 0, from[0], from[1], to[0] - from[0], to[1] - from[1]);
  drawCursor();
}

function repaintAll() {
  repaint(0, 0, editor.width, editor.height);
}

// The brush of the keyboard is shown where it is.
function drawCursor() {
  const mark = element("cursor");
  mark.hidden = editor.keyboard === null;
  if (editor.keyboard === null) return;
  const scale = canvas.clientWidth / editor.width;
  mark.style.width = mark.style.height = `${Math.max(8, editor.size * scale)}px`;
  mark.style.left = `${canvas.offsetLeft + editor.keyboard[0] * scale}px`;
  mark.style.top = `${canvas.offsetTop + editor.keyboard[1] * scale}px`;
}

// ---- Changing ------------------------------------------------------------------------------

// Left, top, right and bottom of what differs between two masks; null where nothing does.
function changedArea(before, after) {
  const { width, height } = editor;
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let at = 0; at < after.length; at += 1) {
    if (before[at] === after[at]) continue;
    const x = at % width;
    const y = (at - x) / width;
    [left, top] = [Math.min(left, x), Math.min(top, y)];
    [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
  }
  return right === 0 ? null : [left, top, right, bottom];
}

// This area of a mask.
function cut(labels, area) {
  const [left, top, right, bottom] = area;
  const kept = new Uint8Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y += 1) {
    const line = labels.subarray(y * editor.width + left, y * editor.width + right);
    kept.set(line, (y - top) * (right - left));
  }
  return { area, kept };
}

// Puts it where it was cut.
function paste({ area: [left, top, right, bottom], kept }) {
  for (let y = top; y < bottom; y += 1) {
    const line = kept.subarray((y - top) * (right - left), (y - top + 1) * (right - left));
    editor.labels.set(line, y * editor.width + left);
  }
}

function bytesOf(pieces) {
  return pieces.reduce((sum, piece) => sum + piece.kept.length, 0);
}

function begin() {
  editor.before = editor.labels.slice();
}

function end() {
  if (editor.before === null) return;
  const area = changedArea(editor.before, editor.labels);
  if (area !== null) {
    editor.undo.push(cut(editor.before, area));
    while (editor.undo.length > 1 && bytesOf(editor.undo) > UNDO_BYTES) editor.undo.shift();
    editor.redo = [];
    painted = editor.id;
  }
  editor.before = null;
  showSteps();
}

function step(from, to) {
  const piece = from.pop();
  if (piece === undefined) return;
  to.push(cut(editor.labels, piece.area));
  paste(piece);
  painted = editor.id;
  repaint(...piece.area);
  showSteps();
}

function showSteps() {
  // Not `disabled`: the button that was just pressed would lose the focus.
  element("undo-stroke").setAttribute("aria-disabled", String(editor.undo.length === 0));
  element("redo-stroke").setAttribute("aria-disabled", String(editor.redo.length === 0));
}

function label() {
  return editor.tool === "eraser" ? 0 : editor.part;
}

function dab([cx, cy]) {
  const { width, height, labels } = editor;
  const radius = editor.size / 2;
  const value = label();
  const [left, right] = [Math.floor(cx - radius), Math.ceil(cx + radius) + 1];
  const [top, bottom] = [Math.floor(cy - radius), Math.ceil(cy + radius) + 1];
  for (let y = Math.max(0, top); y < Math.min(height, bottom); y += 1) {
    for (let x = Math.max(0, left); x < Math.min(width, right); x += 1) {
      if ((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius * radius) labels[y * width + x] = value;
    }
  }
  return [left, top, right, bottom];
}

function strokeTo(point) {
  const from = editor.last || point;
  const steps = Math.max(1, Math.ceil(Math.hypot(point[0] - from[0], point[1] - from[1]) / Math.max(1, editor.size / 4)));
  let area = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 1; i <= steps; i += 1) {
    const share = i / steps;
    const box = dab([from[0] + (point[0] - from[0]) * share, from[1] + (point[1] - from[1]) * share]);
    area = [Math.min(area[0], box[0]), Math.min(area[1], box[1]), Math.max(area[2], box[2]), Math.max(area[3], box[3])];
  }
  editor.last = point;
  repaint(...area);
}

// Gives a connected area of one part another one.
function fill([px, py]) {
  const { width, height, labels } = editor;
  const start = Math.floor(py) * width + Math.floor(px);
  const [old, value] = [labels[start], editor.part];
  if (old === value) return;
  const open = [start];
  labels[start] = value;
  while (open.length > 0) {
    const at = open.pop();
    const x = at % width;
    const around = [x > 0 ? at - 1 : -1, x < width - 1 ? at + 1 : -1, at - width, at + width];
    for (const next of around) {
      if (next >= 0 && next < width * height && labels[next] === old) {
        labels[next] = value;
        open.push(next);
      }
    }
  }
  repaintAll();
}

// ---- Pointer and keyboard ------------------------------------------------------------------

function place(event) {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) * editor.width) / box.width;
  const y = ((event.clientY - box.top) * editor.height) / box.height;
  return [Math.min(editor.width - 0.01, Math.max(0, x)), Math.min(editor.height - 0.01, Math.max(0, y))];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || editor.labels === null || editor.before !== null) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  editor.keyboard = null;
  begin();
  if (editor.tool === "fill") {
    fill(place(event));
    end();
    return;
  }
  editor.pointer = event.pointerId;
  canvas.setPointerCapture(event.pointerId);
  editor.last = null;
  strokeTo(place(event));
});

canvas.addEventListener("pointermove", (event) => {
  if (editor.before === null || event.pointerId !== editor.pointer) return;
  // A fast pen sends several points at once.
  const points = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const point of points.length > 0 ? points : [event]) strokeTo(place(point));
});

// A second finger neither paints nor ends the first one's stroke.
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
  canvas.addEventListener(name, (event) => {
    if (event.pointerId !== editor.pointer) return;
    editor.pointer = null;
    end();
  });
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (editor.labels === null) return;
  const withControl = event.ctrlKey || event.metaKey;
  if (withControl && event.key.toLowerCase() === "z") {
    event.preventDefault();
    if (event.shiftKey) step(editor.redo, editor.undo);
    else step(editor.undo, editor.redo);
    return;
  }
  if (withControl && event.key.toLowerCase() === "y") {
    event.preventDefault();
    step(editor.redo, editor.undo);
    return;
  }
  if (event.key === "Tab" || event.key === "Escape") return;
  const at = editor.keyboard || [editor.width / 2, editor.height / 2];
  const move = MOVES[event.key];
  if (move) {
    event.preventDefault();
    const far = event.shiftKey ? 1 : Math.max(2, editor.size / 2);
    editor.keyboard = [
      Math.min(editor.width - 1, Math.max(0, at[0] + move[0] * far)),
      Math.min(editor.height - 1, Math.max(0, at[1] + move[1] * far)),
    ];
    drawCursor();
  } else if (event.key === " " || event.key === "Enter") {
    event.preventDefault();
    editor.keyboard = at;
    begin();
    editor.last = null;
    if (editor.tool === "fill") fill(at);
    else strokeTo(at);
    end();
  } else if (event.key === "[" || event.key === "]") {
    const by = Math.max(2, Math.round(editor.size / 8));
    setSize(editor.size + (event.key === "]" ? by : -by));
  }
});

// ---- Tools ---------------------------------------------------------------------------------

function setSize(size) {
  editor.size = Math.min(Number(element("size").max), Math.max(2, size));
  element("size").value = String(editor.size);
  setText(element("size-value"), `${editor.size} pixels`);
  drawCursor();
}

function setTool(tool) {
  editor.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
}

function setPart(part) {
  editor.part = part;
  if (editor.tool === "eraser") setTool("brush");
  for (const button of element("palette").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.part) === part));
  }
}

function partButton({ name, colour }, index) {
  const words = name.replaceAll("_", " ");
  const button = make("button", undefined, { type: "button", "data-part": String(index), "aria-pressed": "false" });
  const patch = make("b", "", { "aria-hidden": "true" });
  if (index > 0) patch.style.background = colour;
  button.append(patch, words[0].toUpperCase() + words.slice(1));
  button.addEventListener("click", () => setPart(index));
  return button;
}

async function showPalette() {
  const parts = [NOBODY, ...(await call("GET", "/api/settings")).parts];
  partColours = parts.map((part) => rgb(part.colour));
  element("palette").replaceChildren(...parts.map(partButton));
  setPart(editor.part);
  setTool("brush");
}

// ---- A picture -----------------------------------------------------------------------------

// A picture may take as long as a change.
function fetched(path) {
  return call("GET", path, undefined, { signal: within(CHANGE_MS) });
}

// For showing only: browsers that guard against fingerprints change a little of what is read from a canvas.
async function pixelsOf(path) {
  const blob = await heard((await fetched(path)).blob());
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const sheet = make("canvas", undefined, { width: bitmap.width, height: bitmap.height });
  const scratch = sheet.getContext("2d");
  scratch.drawImage(bitmap, 0, 0);
  return scratch.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function labelsOf(path) {
  return new Uint8Array(await heard((await fetched(path)).arrayBuffer()));
}

async function openEditor() {
  const { id, width, height } = await call("POST", "/api/freeze", {});
  opening = id;
  let picture, labels;
  try {
    if (partColours.length === 0) await showPalette();
    [picture, labels] = await Promise.all([pixelsOf(`/api/frozen/${id}/picture.png`), labelsOf(`/api/frozen/${id}/parts`)]);
    if (labels.length !== width * height) throw new Error("The picture came incomplete; freeze another one.");
  } catch (error) {
    // Nobody can correct what nobody sees, and it would keep others from freezing one.
    call("POST", `/api/frozen/${id}/discard`, {}).catch((trouble) => console.warn(trouble));
    throw error;
  } finally {
    opening = null;
  }
  canvas.width = width;
  canvas.height = height;
  // Of a large picture a telephone shows a pixel as a small part of one of its own.
  element("size").max = String(Math.max(80, Math.round(Math.min(width, height) / 3)));
  // As large as the page and the window allow, and never letterboxed: a pointer's place is a share of the canvas.
  canvas.style.width = `min(100%, ${((80 * width) / height).toFixed(2)}vh)`;
  Object.assign(editor, {
    id, width, height, labels, picture, opened: performance.now(), unanswered: false,
    undo: [], redo: [], before: null, keyboard: null,
  });
  editor.shown = new ImageData(new Uint8ClampedArray(picture.data), width, height);
  element("editor").hidden = false;
  element("freeze").disabled = true;
  element("freeze-hint").hidden = true;
  setSize(editor.size);
  repaintAll();
  showSteps();
  say("");
  element("editor").scrollIntoView({ block: "start" });
  canvas.focus({ preventScroll: true });
}

// Nothing of the picture stays on the page.
function closeEditor() {
  Object.assign(editor, {
    id: null, unanswered: false, labels: null, picture: null, shown: null, undo: [], redo: [], before: null,
  });
  context.clearRect(0, 0, canvas.width, canvas.height);
  element("editor").hidden = true;
}

// What the mirror has forgotten is not to stay on show here. Whether there was something.
function dropPicture() {
  if (editor.id === null) return false;
  // A question about it has no answer any more; its end gives the place back that the keyboard had.
  if (element("discard-sure").open) element("discard-sure").close();
  const inside = element("editor").contains(document.activeElement);
  closeEditor();
  if (inside) leaveEditor();
  return true;
}

function closeForgotten(reason) {
  if (dropPicture()) say(`${reason}: the frozen picture was forgotten.`, true);
}

// Nor does a browser keep it that is not paired any more, or ask whether to stay with it.
document.addEventListener("unpaired", () => {
  if (editor.id !== null) closeEditor();
});

document.addEventListener("camera-off", () => closeForgotten("The camera was switched off"));

// Withdrawn, deleted, too old, or a mirror that started anew: here, or on another page. While a step is under way its own
// answer says more; and what was asked before the picture was frozen tells nothing about it.
document.addEventListener("learning", ({ detail: { asked, frozen } }) => {
  if (busy || editor.id === null || asked <= editor.opened || frozen === editor.id) return;
  // It may be gone because it was stored, and the answer was lost: whoever asks again is told what came of it.
  if (!editor.unanswered) {
    closeForgotten("The mirror does not hold it any more");
    return;
  }
  act(() => saveCorrection(true));
});

// Whoever leaves the page is asked first where something was painted, and takes the picture along.
addEventListener("beforeunload", (event) => {
  if (editor.undo.length === 0) return;
  event.preventDefault();
  // The same to browsers of before 2023.
  event.returnValue = "painted";
});
addEventListener("pagehide", () => {
  const id = editor.id ?? opening;
  if (id === null) return;
  call("POST", `/api/frozen/${id}/discard`, {}, { keepalive: true }).catch(() => {});
});

// Of itself it is tried again once; what has no answer then, either, is told as forgotten.
async function saveCorrection(isRetried = false) {
  // Taken now: "camera off" may close the editor meanwhile.
  const { id, labels } = editor;
  const send = () => call("POST", `/api/frozen/${id}/save`, labels);
  // An answer may be lost after the mirror has stored the picture; it stores it once.
  editor.unanswered = !isRetried;
  let content;
  try {
    content = await send().catch((error) => (error.status === undefined ? send() : Promise.reject(error)));
  } catch (error) {
    if (error.status !== undefined) editor.unanswered = false;
    throw error;
  }
  editor.unanswered = false;
  closeEditor();
  leaveEditor();
  say(`Correction ${content.correction.number + 1} was saved on this device, encrypted.`);
}

// The pressed button is gone, and with it the place of whoever uses the keyboard.
function leaveEditor() {
  element("freeze").disabled = false;
  element("freeze").focus();
}

// What was painted is not to go by a press beside "Save".
async function askToDiscard() {
  const { id } = editor;
  if (editor.undo.length > 0 && !await ask("discard-sure")) return;
  if (editor.id === id) act(discardPicture);
}

async function discardPicture() {
  const { id } = editor;
  closeEditor();
  leaveEditor();
  await call("POST", `/api/frozen/${id}/discard`, {});
  say("The picture was discarded. Nothing was stored.");
}

element("freeze").addEventListener("click", () => act(openEditor));
element("save").addEventListener("click", () => act(saveCorrection));
element("discard").addEventListener("click", askToDiscard);
element("undo-stroke").addEventListener("click", () => step(editor.undo, editor.redo));
element("redo-stroke").addEventListener("click", () => step(editor.redo, editor.undo));
element("size").addEventListener("input", () => setSize(Number(element("size").value)));
element("strength").addEventListener("input", () => { if (editor.labels) repaintAll(); });
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => setTool(button.dataset.tool));
}
addEventListener("resize", () => { if (editor.labels) drawCursor(); });

showPalette().catch((error) => console.warn(error));
