"use strict";

// Learning at home: consent, training, the privacy budget, stored corrections, deletion. Uses what call.js, page.js and
// access.js define, and correct.js for an open picture.

const LEARNING_INTERVAL_MS = 2000;
const MEBIBYTE = 1024 * 1024;

// So long a message lies over the page, where whoever pressed something far down sees it; then it goes to its own place, which is
// kept meanwhile, so that nothing moves under a finger.
const FRESH_MS = 12000;

let learning = null;
let busy = false;
let settling = 0;
// The frozen picture that was painted on since the mirror was last asked; correct.js says so.
let painted = null;

function say(text, trouble = false) {
  const target = element("learn-message");
  settle();
  target.toggleAttribute("data-trouble", trouble);
  setText(target, text);
  target.parentElement.style.minHeight = `${target.offsetHeight}px`;
  if (text === "") return;
  target.toggleAttribute("data-fresh", true);
  // What it covers can be scrolled from beneath it.
  const covered = `${innerHeight - target.getBoundingClientRect().top}px`;
  document.body.style.paddingBottom = covered;
  document.documentElement.style.scrollPaddingBottom = covered;
  settling = setTimeout(settle, FRESH_MS);
}

function settle() {
  clearTimeout(settling);
  element("learn-message").removeAttribute("data-fresh");
  document.body.style.paddingBottom = "";
  document.documentElement.style.scrollPaddingBottom = "";
}

element("learn-message").addEventListener("click", settle);

// One step at a time; but what takes something back never waits for one that hangs.
async function act(work, { urgent = false } = {}) {
  if (busy && !urgent) {
    say("Not done: the step before is still under way. Try again in a moment.", true);
    return;
  }
  const mine = !busy;
  busy = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
  if (mine) busy = false;
  await refreshLearning();
}

// ---- Consent -------------------------------------------------------------------------------

const QUESTIONS = [
  ["what", "What happens"],
  ["leaves", "What leaves"],
  ["stays", "What never leaves"],
  ["budget", "Privacy budget"],
  ["stop", "How to stop"],
  ["cannot_undo", "What cannot be undone"],
];

// What may be taken back while its switch is off.
const BACK = { outdated: "Take the earlier yes back", unstored: "Take it back again" };

function purposeBox(text) {
  const box = make("div", undefined, { class: "purpose", id: `purpose-${text.purpose}` });
  const control = make("button", undefined, {
    class: "switch", type: "button", role: "switch", "aria-checked": "false",
    "aria-describedby": `words-${text.purpose}`,
  });
  const track = make("span", undefined, { class: "track", "aria-hidden": "true" });
  track.append(make("span", undefined, { class: "thumb" }));
  control.append(track, make("span", text.title), make("span", undefined, { class: "stands", "aria-hidden": "true" }));
  control.addEventListener("click", () => {
    const agreed = hasAgreed(text.purpose);
    act(() => switchConsent(text.purpose, agreed), { urgent: agreed });
  });
  const words = make("dl", undefined, { class: "words", id: `words-${text.purpose}` });
  for (const [key, question] of QUESTIONS) {
    words.append(make("dt", question), make("dd", text[key]));
  }
  const back = make("button", "", { type: "button", class: "quiet", "data-back": "", hidden: "" });
  back.addEventListener("click", () => act(() => switchConsent(text.purpose, true), { urgent: true }));
  box.append(control, make("p", "", { class: "hint", "data-since": "" }), back, words);
  return box;
}

function hasAgreed(purpose) {
  return learning.consents.find((consent) => consent.purpose === purpose).agreed;
}

// What is taken back the mirror has forgotten, also where its storage refuses to note that. The picture goes before anything is said, and
// without a word of its own: the answer is to stay.
async function takeBack(path, body) {
  try {
    const answer = await call("POST", path, body);
    dropPicture();
    return answer;
  } catch (error) {
    if (error.status >= 500) dropPicture();
    throw error;
  }
}

// Of the words that are shown.
function versionOf(purpose) {
  const { versions, purposes } = learning.explanation;
  return versions[purposes.findIndex((text) => text.purpose === purpose)];
}

async function switchConsent(purpose, agreed) {
  const version = versionOf(purpose);
  const ask = agreed && purpose === "improve_my_mirror" ? takeBack : (path, body) => call("POST", path, body);
  const answer = await ask("/api/learning/consent", { purpose, version, agree: !agreed });
  say(agreed ? answer.message : "Thank you. You can switch this off at any time.");
}

function showConsents() {
  const { versions, purposes } = learning.explanation;
  const list = element("purposes");
  if (list.dataset.versions !== String(versions)) {
    list.replaceChildren(...purposes.map(purposeBox));
    list.dataset.versions = String(versions);
  }
  for (const { purpose, agreed, consent } of learning.consents) {
    const box = element(`purpose-${purpose}`);
    const back = box.querySelector("[data-back]");
    back.hidden = !(consent.state in BACK);
    if (!back.hidden) setText(back, BACK[consent.state]);
    const control = box.querySelector("[role=switch]");
    control.setAttribute("aria-checked", String(agreed));
    const joins = purpose === "contribute_to_fleet";
    control.disabled = joins && !learning.fleet.member && !agreed;
    const words = joins ? contributionText(agreed, since(consent)) : since(consent);
    setText(box.querySelector("[data-since]"), words);
  }
}

// Whoever cannot contribute, or has nothing to contribute, is told so.
function contributionText(agreed, words) {
  if (!learning.fleet.member) return `This mirror belongs to no fleet. ${words}`;
  if (!agreed) return words;
  if (!hasAgreed("improve_my_mirror")) {
    return `${words} Nothing is sent while “Improve my mirror” is off.`;
  }
  return learning.usage.corrections === 0 ? `${words} Nothing new can be sent until a picture is corrected.` : words;
}

function since({ state, record }) {
  if (state === "absent") return "Off. Nobody has agreed.";
  if (state === "unstored") {
    return "Off, but only until the mirror’s next start: the disk cannot be written. Make room on it, then press the button below.";
  }
  const when = new Date(1000 * record.granted_at).toLocaleString();
  const words = `to version ${record.text_version.toString(16)} of this text, ${when}`;
  return state === "given" ? `Agreed ${words}.` : `Off. The text has changed since somebody agreed ${words}.`;
}

// ---- Privacy -------------------------------------------------------------------------------

function showPrivacy() {
  const { privacy } = learning;
  const panel = element("privacy-figures");
  setText(element("privacy-trouble"), privacy.error || "");
  panel.hidden = Boolean(privacy.error);
  // Who deletes what an update was learnt from is told what becomes of it.
  for (const words of document.querySelectorAll("[data-waits]")) words.hidden = !(privacy.waiting > 0);
  if (privacy.error) return;
  const { spent, target_epsilon: target } = privacy;
  const share = Math.min(1, spent.epsilon / target);
  const bar = element("privacy-bar");
  bar.setAttribute("aria-valuenow", spent.epsilon.toFixed(4));
  bar.setAttribute("aria-valuemax", String(target));
  bar.setAttribute("aria-valuetext", `epsilon ${spent.epsilon.toFixed(4)} of ${target} spent`);
  bar.firstElementChild.style.width = `${(100 * share).toFixed(1)}%`;
  setText(element("privacy-spent"), `${spent.epsilon.toFixed(4)} of ${target}`);
  setText(element("privacy-left"), String(privacy.releases_left));
  const rows = [
    ["Delta", String(spent.delta)],
    ["Unit", spent.unit],
    ["Adjacency", spent.adjacency],
    ["What has to be trusted", spent.trust],
    ["Noise of the next update", `${privacy.next_noise_multiplier} times the clipping norm ${privacy.clip}`],
    ["Numbers in an update", String(privacy.dimension ?? "not known without the vision network")],
    ["Updates so far", `${spent.releases} (${privacy.waiting} waiting, ${privacy.published} sent, ${privacy.burnt} given up)`],
  ];
  fillList(element("privacy-facts"), rows);
}

// ---- Training and corrections --------------------------------------------------------------

const REASONS = {
  person_present: "somebody is in front of the mirror, or it takes something for a person: switch the camera off to train now",
  hot: "the mirror is too warm",
  on_battery: "the mirror runs on its battery",
  busy: "the mirror is busy",
};

function trainingText({ state, reason, done, total, trouble }) {
  if (state === "running") return `Training, step ${done} of ${total}`;
  if (state === "judging") return "Comparing the new head with the old one";
  if (state === "waiting") return `Waiting: ${REASONS[reason] || reason}`;
  return trouble ? `Waiting to try again (every minute): ${trouble}` : "Idle";
}

function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

// The head in use; of all but that one, the one before. None is the one that the mirror came with, or the fleet's.
function newest(heads) {
  return heads[heads.length - 1];
}

// A head of the household's own was taken over at the moment that its run ended.
function isInUse(run, head) {
  return head !== undefined && head.fleet === null && head.adopted_at === run.ended_at;
}

function verdict(run, head) {
  if (run.adopted) return isInUse(run, head) ? "in use now" : "taken over then, not in use any more";
  if (run.after === null) return "not used, because nothing shows yet whether it is better: every fifth correction is kept for that";
  return "not better, so not used";
}

function headText(head) {
  const { model } = learning.fleet;
  if (!head) return model ? `the fleet’s, version ${model}` : "the one the mirror came with";
  if (head.fleet === null) return `your household’s, number ${head.number + 1}`;
  return `${head.fleet ? `the fleet’s, version ${head.fleet}` : "the one the mirror came with"}: better on your corrections`;
}

function showTraining() {
  const { training, heads } = learning;
  const rows = [["Now", trainingText(training)], ["New corrections", String(training.new_corrections)]];
  if (training.example_milliseconds) rows.push(["One example", `${training.example_milliseconds.toFixed(1)} ms`]);
  const last = training.last;
  const head = newest(heads);
  if (last) {
    rows.push(["Last run", `${counted(last.examples, "correction")}, ${last.epochs} passes: ${verdict(last, head)}`]);
    if (last.after !== null) {
      rows.push(["Agreement with held-back corrections", `${percent(last.before)} before, ${percent(last.after)} after`]);
    }
  }
  rows.push(["Head in use", headText(head)]);
  fillList(element("training"), rows);
  setDisabled(element("undo"), heads.length === 0);
}

function bytes(count) {
  return count < MEBIBYTE ? `${Math.ceil(count / 1024)} KiB` : `${(count / MEBIBYTE).toFixed(1)} MiB`;
}

// Its values are the parts' numbers, 0 to 15: a program reads them, and to people it is nearly black.
function partMapLink(number, name) {
  return make("a", "part map", {
    href: `/api/corrections/${number}/mask.png`, download: `correction-${number + 1}-parts.png`, "aria-label": `Part map of ${name}`,
  });
}

function correctionItem(correction) {
  const item = make("li");
  const name = `Correction ${correction.number + 1}`;
  if (correction.damaged) item.append(make("span", "damaged", { class: "nothing" }));
  else item.append(make("img", undefined, { src: `/api/corrections/${correction.number}/picture.png`, alt: name, loading: "lazy" }));
  const text = make("span", name);
  const when = correction.saved_at === null ? "" : day(correction.saved_at);
  text.append(make("small", `${when}, ${bytes(correction.bytes)}${correction.held_back ? ", held back to judge" : ""}`));
  if (!correction.damaged) text.append(partMapLink(correction.number, name));
  const remove = make("button", "Delete", { type: "button", class: "quiet", "aria-label": `Delete ${name}` });
  remove.addEventListener("click", async () => {
    setText(element("correction-title"), `Delete ${name.toLowerCase()}?`);
    if (await ask("correction-sure")) act(() => removeCorrection(correction.number, name));
  });
  item.append(text, remove);
  return item;
}

async function removeCorrection(number, name) {
  await call("POST", "/api/corrections/remove", { number });
  say(`${name} was deleted. What the mirror has learnt from it stays in its head until you go back to an earlier head, or delete everything.`);
}

function showCorrections() {
  const { usage, corrections } = learning;
  const { limits } = usage;
  const age = Math.round(limits.age.secs / 86400);
  setText(element("usage"), `${usage.corrections} of at most ${limits.corrections} corrections, `
    + `${bytes(usage.bytes)} of at most ${bytes(limits.bytes)}, each kept for at most ${age} days, counted as said above. Encrypted on this device.`);
  showRows(element("corrections"), element("corrections-title"), JSON.stringify(corrections), () => corrections.map(correctionItem));
}

// ---- Fleet ---------------------------------------------------------------------------------

function modelText({ model, model_under_way: underWay, model_on_offer: onOffer }) {
  const base = model ? `version ${model} of the fleet` : "the one the mirror came with";
  if (underWay) return `${base}; version ${underWay} is being fetched and tried`;
  return onOffer ? `${base}; version ${onOffer} is on offer` : base;
}

function roundText({ round, note }) {
  const text = round === null ? "no open round" : `round ${round} is open`;
  return note ? `${text}; ${note}` : text;
}

// With the question goes its button, and the place of whoever has pressed it.
function showQuestion(asks) {
  const question = element("fleet-asks");
  const inside = question.contains(document.activeElement);
  question.hidden = !asks;
  if (inside && !asks) element("fleet-title").focus();
}

// Who refused what: the fleet the household's updates, the disk what was to be remembered, and this mirror the rest.
function refusalRows({ update = 0, memory = 0, ...others }) {
  const rows = [];
  if (update > 0) rows.push(["Updates that the fleet turned down", String(update)]);
  if (memory > 0) rows.push(["Could not be written on this device", String(memory)]);
  const refused = Object.entries(others).map(([what, count]) => `${what}: ${count}`);
  if (refused.length > 0) rows.push(["Refused by this mirror", refused.join(", ")]);
  return rows;
}

function showFleet() {
  const { fleet } = learning;
  showQuestion(fleet.asks);
  if (!fleet.member) {
    fillList(element("fleet"), [["Member", "This mirror belongs to no fleet. Nothing is sent."]]);
    return;
  }
  const rows = [
    ["Broker", fleet.connected ? "connected" : "away; the mirror works without it"],
    ["Now", roundText(fleet)],
    ["Updates that counted", String(fleet.contributions)],
    ["Model", modelText(fleet)],
    ...refusalRows(fleet.refused),
  ];
  fillList(element("fleet"), rows);
}

element("fleet-decline").addEventListener("click", () => act(async () => {
  const version = versionOf("contribute_to_fleet");
  await call("POST", "/api/learning/consent", { purpose: "contribute_to_fleet", version, agree: false });
  say("Nothing changes: the household does not take part.");
}, { urgent: true }));

// ---- All of it -----------------------------------------------------------------------------

function showLearning(state) {
  const ready = state.state === "ready";
  element("learn-ready").hidden = !ready;
  setText(element("learn-trouble"), ready ? state.problems.join("\n") : sentence(state.reason));
  if (!ready) return;
  learning = state;
  showConsents();
  showPrivacy();
  showFleet();
  showTraining();
  showCorrections();
  const agreed = hasAgreed("improve_my_mirror");
  const hint = freezeHint(state);
  // An open picture is saved or discarded first: a new one would take its place, and what was painted with it.
  // Without a network there is nothing to correct, and nothing to learn with.
  element("freeze").disabled = !agreed || !state.learns || state.no_freezing !== null || !element("editor").hidden;
  element("train").disabled = !agreed || !state.learns || state.usage.corrections === 0;
  element("freeze-hint").hidden = hint === "";
  setText(element("freeze-hint"), hint);
}

// Why no picture can be frozen, or that one is kept which this page does not show. One that it is about to show is no news.
function freezeHint({ no_freezing: reason, frozen }) {
  if (!hasAgreed("improve_my_mirror")) return "Switch “Improve my mirror” on first.";
  if (reason !== null) return sentence(reason);
  const waits = frozen !== null && element("editor").hidden && !busy;
  return waits ? "A frozen picture waits to be corrected, or is being corrected on another page. The mirror forgets it 20 minutes after somebody last worked on it." : "";
}

const learningTurn = turns();

async function refreshLearning() {
  const [asked, worked, isInTurn] = [performance.now(), painted, learningTurn()];
  painted = null;
  try {
    const state = await call("GET", worked === null ? "/api/learning" : `/api/learning?painted=${worked}`);
    if (!isInTurn()) return;
    document.dispatchEvent(new CustomEvent("learning", { detail: { asked, frozen: state.frozen } }));
    showLearning(state);
  } catch (error) {
    painted ??= worked;
    // One that comes late leaves what was shown.
    if (isInTurn() && learning === null) setText(element("learn-trouble"), sentence(error.message));
    console.warn(error);
  }
}

async function keepLearning() {
  if (!document.hidden) await refreshLearning();
  setTimeout(keepLearning, LEARNING_INTERVAL_MS);
}

element("train").addEventListener("click", () => act(async () => {
  await call("POST", "/api/learning/train", {});
  say("Training starts as soon as nobody needs the mirror.");
}));

onPress(element("undo"), async () => {
  const { heads } = learning;
  const { number } = newest(heads);
  setText(element("undo-what"), `In use now: ${headText(newest(heads))}. Afterwards: ${headText(newest(heads.slice(0, -1)))}.`);
  if (!await ask("undo-sure")) return;
  act(async () => {
    const { head } = await call("POST", "/api/learning/undo", { number });
    say(`In use now: ${headText(head)}.`);
  });
});

element("delete-all").addEventListener("click", async () => {
  if (await ask("delete-sure")) act(deleteAll, { urgent: true });
});

async function deleteAll() {
  const { complete, proof } = await takeBack("/api/learning/delete", {});
  const rest = "Not everything could be deleted. Press “Delete everything” again; what is left is listed below.";
  say(complete ? "Everything was deleted." : rest, !complete);
  // A damaged ledger cannot tell.
  const sent = proof.already_sent === null ? "cannot be told: the ledger is damaged" : counted(proof.already_sent, "update");
  const rows = [
    ["Removed", proof.removed.join(", ") || "there was nothing"],
    ["Key erased", proof.key_erased ? "yes: copies of the sealed files alone are unreadable too; a copy of the whole disk may hold the key" : "no"],
    ["Should be gone and is not", proof.remaining.join(", ") || "nothing"],
    ...proof.left.map((file) => [`Stays: ${file.name}`, file.why]),
    ...(known > 0 ? [["Paired browsers", "stay: remove them below"]] : []),
    ["Sent before, cannot be called back", sent],
    ...(proof.given_up ? [["Given up; one may have reached the fleet", counted(proof.given_up, "update")]] : []),
  ];
  element("proof").hidden = false;
  fillList(element("proof-facts"), rows);
}

keepLearning();
