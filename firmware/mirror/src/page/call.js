"use strict";

// How the pages ask the mirror; each of them loads this first.

// How long an answer to a question may take, and one to a change: longer than anything that the mirror does while somebody waits.
const PATIENCE_MS = 4000;
const CHANGE_MS = 60000;

// Ends what takes longer. `AbortSignal.timeout` is younger than many a telephone's last update.
function within(milliseconds) {
  const patience = new AbortController();
  setTimeout(() => patience.abort(), milliseconds);
  return patience.signal;
}

// What the mirror answers: JSON as its value, anything else as the answer itself. An error is one for people; with a status it is the
// mirror's refusal, without one no answer came. Bytes are sent as they are.
async function call(method, path, body, options = {}) {
  const isBytes = body instanceof Uint8Array;
  const headers = {};
  if (method !== "GET") headers["x-mirror-change"] = "1";
  if (body !== undefined) headers["content-type"] = isBytes ? "application/octet-stream" : "application/json";
  const request = {
    method,
    headers,
    body: body === undefined || isBytes ? body : JSON.stringify(body),
    signal: within(method === "GET" ? PATIENCE_MS : CHANGE_MS),
    ...options,
  };
  const answer = await heard(fetch(path, request));
  if (!answer.ok) throw await refusalOf(answer);
  return isJson(answer) ? heard(answer.json()) : answer;
}

function isJson(answer) {
  return (answer.headers.get("content-type") || "").startsWith("application/json");
}

async function refusalOf(answer) {
  // Not paired any more: the mirror then shows the page that pairs.
  if (answer.status === 401) document.dispatchEvent(new Event("unpaired"));
  const content = await answer.json().catch(() => ({}));
  const error = new Error(content.error || `The mirror answered ${answer.status}.`);
  return Object.assign(error, { status: answer.status });
}

// An answer, or the rest of one. What browsers call a missing one is nothing for people.
async function heard(coming) {
  try {
    return await coming;
  } catch (error) {
    if (error.name === "AbortError") throw new DOMException("The mirror did not answer in time.", "TimeoutError");
    throw error instanceof TypeError ? new Error("The mirror cannot be reached.") : error;
  }
}

// What the mirror gives as a reason, where it stands alone.
function sentence(text) {
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended[0].toUpperCase() + ended.slice(1);
}
