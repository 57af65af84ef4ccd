"use strict";

// Paired browsers: who may open this page from the home network. Uses what page.js defines.

// Longer than anything that the mirror does while somebody waits.
const CHANGE_MS = 60000;

async function change(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    signal: AbortSignal.timeout(CHANGE_MS),
    headers: { "content-type": "application/json", "x-mirror-change": "1" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const content = text ? JSON.parse(text) : {};
  if (!answer.ok) throw new Error(content.error || `${path}: ${answer.status}`);
  return content;
}

function day(seconds) {
  return new Date(1000 * seconds).toLocaleDateString(undefined, { dateStyle: "medium" });
}

function browserItem(browser) {
  const item = make("li");
  const text = make("span", browser.name);
  text.append(make("small", `paired ${day(browser.paired_at)}, last used ${day(browser.seen_at)}`));
  const remove = make("button", browser.this ? "Sign out here" : "Remove", { type: "button", class: "quiet" });
  remove.setAttribute("aria-label", `${remove.textContent}: ${browser.name}`);
  remove.addEventListener("click", async () => {
    await change("/api/browsers/remove", { id: browser.id }).catch((error) => {
      setText(element("access-trouble"), error.message);
    });
    if (browser.this) location.reload();
    else await showAccess();
  });
  item.append(text, remove);
  return item;
}

async function showAccess() {
  const access = await ask("/api/access");
  const open = access.network !== null;
  element("access").hidden = !open;
  if (!open) return;
  setText(element("access-address"), access.network);
  setText(element("access-fingerprint"), access.fingerprint);
  element("access-pair").hidden = access.door !== "device";
  element("browsers").replaceChildren(...access.browsers.map(browserItem));
  element("browsers-none").hidden = access.browsers.length > 0;
}

element("access-pair").addEventListener("click", async () => {
  setText(element("access-trouble"), "");
  try {
    const shown = await change("/api/pairing", {});
    const code = `${shown.code.slice(0, 3)} ${shown.code.slice(3)}`;
    setText(element("access-code"), `${code} (good for ${shown.seconds_left} s)`);
  } catch (error) {
    setText(element("access-trouble"), error.message);
  }
});

showAccess().catch((error) => console.warn(error));
