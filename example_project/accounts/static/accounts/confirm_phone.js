"use strict";

// The whole talk with the API: start, ask until the code is sent, confirm.

const page = document.querySelector("#confirm-phone");
const texts = JSON.parse(document.querySelector("#texts").textContent);
const numberForm = document.querySelector("#number-form");
const number = document.querySelector("#number");
const codeForm = document.querySelector("#code-form");
const code = document.querySelector("#code");
const resend = document.querySelector("#resend");
const change = document.querySelector("#change");
const news = document.querySelector("#status");
const error = document.querySelector("#error");

// Where the verification is. A phone may drop this page while its owner reads the SMS,
// so this is kept until the tab is closed.
let address = sessionStorage.getItem("verification");
// Whether only a new code can help, and when one may be asked for, by this clock.
let spent = false;
let resendAt = 0;
let busy = false;

// --- The API ---

async function call(method, url, body) {
  try {
    const answer = await fetch(url, {
      method,
      body: body && JSON.stringify(body),
      headers: {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "X-CSRFToken": cookie("csrftoken"),
      },
      signal: AbortSignal.timeout(20000),
    });
    return { status: answer.status, headers: answer.headers, data: await answer.json() };
  } catch {
    return { status: 0, data: { detail: texts.offline } };
  }
}

function cookie(name) {
  const found = document.cookie.match(`(?:^|; )${name}=([^;]*)`);
  return found ? decodeURIComponent(found[1]) : "";
}

async function start() {
  const answer = await call("POST", page.dataset.startUrl, { phone_number: number.value });
  if (answer.status === 202) {
    remember(answer.headers.get("Location"));
    code.value = "";
    follow(answer);
  } else {
    // An earlier code stays good when a new one is refused.
    if (answer.data.retry_after) resendAt = Date.now() + answer.data.retry_after * 1000;
    showRefusal(answer, codeForm.hidden ? number : code);
  }
}

// Ask until the code is sent, or is known not to be, or another one was started.
async function follow(answer) {
  const followed = address;
  for (let pause = 400; address === followed; pause = Math.min(pause * 1.2, 3000)) {
    if (answer.status === 404) return reset();
    if (answer.data.status) show(answer);
    else showRefusal(answer);
    if (answer.data.status && !isOnItsWay(answer.data)) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
    answer = await call("GET", followed);
  }
}

async function check() {
  showStatus(texts.checking);
  const checked = address;
  const answer = await call("POST", `${address}confirm/`, { code: code.value.replace(/\s/g, "") });
  if (address !== checked) return;
  showStatus("");
  if (answer.status === 200) {
    show(answer);
    if (!answer.data.is_verified && !spent) {
      showError(texts.wrong.replace("{left}", answer.data.checks_left), code);
    }
  } else if (answer.status === 410) {
    follow(await call("GET", address));
  } else {
    showRefusal(answer, code);
  }
}

// --- What is known ---

function isOnItsWay(verification) {
  return ["queued", "sending"].includes(verification.status);
}

function remember(newAddress) {
  address = newAddress;
  sessionStorage.setItem("verification", address);
}

function forget() {
  address = null;
  sessionStorage.removeItem("verification");
  spent = false;
}

function reset() {
  forget();
  code.value = "";
  showStatus("");
  showForm(numberForm, number);
}

// --- What is seen and heard ---

function show({ data, headers }) {
  // The server's clock and this one may differ.
  const now = Date.parse(headers.get("Date")) || Date.now();
  resendAt = Date.now() + Date.parse(data.resend_at) - now;
  spent = data.code_spent;
  showError("");
  if (data.status === "verified") {
    forget();
    showStatus(texts.confirmed);
    location.assign(page.dataset.profileUrl);
  } else if (data.status === "failed") {
    reset();
    showError(texts[data.failure], data.failure === "number_refused" && number);
  } else if (isOnItsWay(data)) {
    showStatus(texts.sending.replace("{number}", data.phone_number));
  } else {
    showForm(codeForm, code);
    showStatus(spent ? "" : texts.enter.replace("{number}", data.phone_number));
    if (spent) showError(texts[data.status] || texts.spent, error);
  }
}

function showForm(form, input) {
  numberForm.hidden = form !== numberForm;
  codeForm.hidden = form !== codeForm;
  refresh();
  input.focus();
  input.select();
}

function showStatus(text) {
  news.textContent = text;
}

// The place to go on from gets the focus, an input also the mark of an error.
function showError(text, place) {
  // Said once, however often it is found.
  if (error.textContent !== text) error.textContent = text;
  for (const input of [number, code]) input.setAttribute("aria-invalid", input === place);
  if (place) place.focus();
}

// The API says in words what is wrong: with a field, or in all.
function showRefusal({ status, data }, input) {
  const text = data.detail || Object.values(data).flat()[0];
  const wait = data.retry_after ? texts.wait.replace("{seconds}", data.retry_after) : "";
  showError(`${text} ${wait}`.trim(), status === 400 && input);
  if (input) input.focus();
}

// The countdown stands on the button: a screen reader is not interrupted each second.
function refresh() {
  const seconds = Math.max(0, Math.ceil((resendAt - Date.now()) / 1000));
  resend.textContent = seconds ? texts.resend_in.replace("{seconds}", seconds) : texts.resend;
  for (const button of page.querySelectorAll("button")) button.disabled = busy && button !== change;
  resend.disabled ||= seconds > 0;
  code.disabled = spent;
  codeForm.querySelector("button").disabled ||= spent;
}

async function run(task) {
  if (busy) return;
  busy = true;
  showError("");
  refresh();
  try {
    await task();
  } finally {
    busy = false;
    refresh();
  }
}

numberForm.addEventListener("submit", (event) => {
  event.preventDefault();
  run(start);
});
codeForm.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!spent) run(check);
});
resend.addEventListener("click", () => {
  // Not known where the page was loaded anew since.
  if (number.value) run(start);
  else reset();
});
change.addEventListener("click", reset);
setInterval(refresh, 250);
if (address) call("GET", address).then((found) => (found.data.code_spent ? reset() : follow(found)));
