"use strict";

// Paired browsers: who may open this page from the home network. Uses what call.js and page.js define.

// How often the list is looked at: a browser may be paired, or removed, elsewhere.
const ACCESS_INTERVAL_MS = 5000;

let codeTimer = 0;
// Browsers that were paired when the list was shown last, and whether this is one of them.
let known = null;
let isPaired = false;

function day(seconds) {
  return new Date(1000 * seconds).toLocaleDateString(undefined, { dateStyle: "medium" });
}

function browserItem(browser) {
  const item = make("li");
  const text = make("span", browser.name);
  const state = browser.shut ? "shut out until the mirror’s next start only; remove it again" : `last used ${day(browser.seen_at)}`;
  text.append(make("small", `paired ${day(browser.paired_at)}, ${state}`));
  const remove = make("button", browser.this ? "Sign out here" : "Remove", { type: "button", class: "quiet" });
  remove.setAttribute("aria-label", `${remove.textContent}: ${browser.name}`);
  remove.addEventListener("click", async () => {
    setText(element("browser-title"), browser.this ? "Sign this browser out?" : `Remove “${browser.name}”?`);
    if (await ask("browser-sure")) await removeBrowser(browser);
  });
  item.append(text, remove);
  return item;
}

async function removeBrowser(browser) {
  setText(element("access-trouble"), "");
  try {
    await call("POST", "/api/browsers/remove", { id: browser.id });
    if (browser.this) location.reload();
  } catch (error) {
    // Shut out all the same, until the next start: the page that pairs would come, and nobody would read this.
    stays = browser.this && error.status === 507;
    setText(element("access-trouble"), sentence(error.message));
  }
  if (!browser.this) await refreshAccess();
}

// For whoever gives the mirror away; signs this browser out as well, and ends the code that is shown.
async function removeAll() {
  hideCode();
  setText(element("access-trouble"), "");
  try {
    await call("POST", "/api/browsers/remove-all", {});
  } catch (error) {
    // As above.
    stays = isPaired && error.status === 507;
    setText(element("access-trouble"), sentence(error.message));
  }
  if (!stays) await refreshAccess();
}

element("browsers-remove").addEventListener("click", async () => {
  if (await ask("browsers-sure")) await removeAll();
});

// A list anew where something of it has changed. The place of whoever uses the keyboard is kept: the row that comes next, or the
// last one, or the heading; and no button of it, which would be pressed by whoever presses once more.
function showRows(list, heading, key, rows) {
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const at = Array.from(list.children).findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows());
  for (const row of list.children) row.tabIndex = -1;
  if (at >= 0) (list.children[Math.min(at, list.children.length - 1)] || heading).focus();
}

// With the last browser goes the button, and the place of whoever has pressed it.
function showRemoveAll(isWanted) {
  const button = element("browsers-remove");
  const inside = document.activeElement === button;
  button.hidden = !isWanted;
  if (inside && !isWanted) element("access-title").focus();
}

function addressText({ network, name }) {
  if (network === null) {
    return "Browsers in your home cannot open this page at present: connect the mirror to your network, or see the notice above.";
  }
  const where = name === null ? network : `${network} or ${name}`;
  const stays = name === null ? "" : " Prefer the name: it stays when the IP address changes, and so does the pairing.";
  return `Browsers in your home open this page at ${where} after pairing with the code on the mirror.${stays}`;
}

const accessTurn = turns();

async function showAccess() {
  const isInTurn = accessTurn();
  const access = await call("GET", "/api/access");
  if (!isInTurn()) return;
  // Also while the network is away: whoever is paired can be removed.
  const wanted = access.fingerprint !== null;
  element("access").hidden = !wanted;
  element("to-access").hidden = !wanted;
  if (!wanted) return;
  setText(element("access-address"), addressText(access));
  setText(element("access-fingerprint"), access.fingerprint);
  element("access-pair").hidden = access.door !== "device";
  const { browsers } = access;
  showRows(element("browsers"), element("access-title"), JSON.stringify(browsers), () => browsers.map(browserItem));
  element("browsers-none").hidden = browsers.length > 0;
  showRemoveAll(browsers.length > 0);
  // The browser that came has used the code.
  if (known !== null && browsers.length > known) hideCode();
  known = browsers.length;
  isPaired = access.door === "network";
}

async function refreshAccess() {
  try {
    await showAccess();
  } catch (error) {
    console.warn(error);
  }
}

async function keepAccess() {
  if (!document.hidden && !stays) await refreshAccess();
  setTimeout(keepAccess, ACCESS_INTERVAL_MS);
}

function hideCode() {
  clearTimeout(codeTimer);
  setText(element("access-code"), "");
  setText(element("access-left"), "");
}

// The seconds stand beside the code, which is read out once and not every second.
function countCode(until) {
  const left = Math.ceil((until - Date.now()) / 1000);
  if (left <= 0) {
    hideCode();
    return;
  }
  setText(element("access-left"), `Good for ${left} s.`);
  codeTimer = setTimeout(() => countCode(until), 500);
}

element("access-pair").addEventListener("click", async () => {
  setText(element("access-trouble"), "");
  try {
    const shown = await call("POST", "/api/pairing", {});
    hideCode();
    setText(element("access-code"), `${shown.code.slice(0, 3)} ${shown.code.slice(3)}`);
    countCode(Date.now() + 1000 * shown.seconds_left);
  } catch (error) {
    setText(element("access-trouble"), sentence(error.message));
  }
});

keepAccess();
