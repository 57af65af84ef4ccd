"use strict";

const element = (id) => document.getElementById(id);
let counting = 0;

// Says something about the code, once; the seconds stand beside it and are not read out.
function tell(text) {
  clearTimeout(counting);
  element("shown").textContent = text;
  element("left").textContent = "";
}

function countDown(until) {
  const left = Math.ceil((until - Date.now()) / 1000);
  if (left <= 0) {
    tell("The code is no longer good. Ask for a new one.");
    element("begin").disabled = false;
    return;
  }
  element("left").textContent = `It is good for ${left} s.`;
  counting = setTimeout(() => countDown(until), 500);
}

element("begin").addEventListener("click", async () => {
  element("trouble").textContent = "";
  element("begin").disabled = true;
  try {
    const shown = await call("POST", "/api/pairing", {});
    if (shown.on_screen) {
      tell("The mirror shows a code.");
      countDown(Date.now() + 1000 * shown.seconds_left);
    } else {
      tell("This mirror has no screen now. Run “mirror pair” on it to read the code.");
      element("begin").disabled = false;
    }
    element("code").focus();
  } catch (error) {
    element("begin").disabled = false;
    element("trouble").textContent = sentence(error.message);
  }
});

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("trouble").textContent = "";
  try {
    await call("POST", "/api/pairing/finish", { code: element("code").value, name: element("name").value });
    location.reload();
  } catch (error) {
    element("trouble").textContent = sentence(error.message);
    // Any answer but "wrong, try again" is the code's end: used, or guessed at too often.
    if (error.status !== undefined && error.status !== 403) {
      tell("");
      element("begin").disabled = false;
    }
    element("code").select();
    element("code").focus();
  }
});
