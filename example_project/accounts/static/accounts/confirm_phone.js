"use strict";

// Calls the API: start, poll until the code is sent, confirm.

const page = document.querySelector("#confirm-phone");
const texts = JSON.parse(document.querySelector("#texts").textContent);
const numberForm = document.querySelector("#number-form");
const number = document.querySelector("#number");
const codeForm = document.querySelector("#code-form");
const code = document.querySelector("#code");
const resend = document.querySelector("#resend");
const change = document.querySelector("#change");
const statusElement = document.querySelector("#status");
const errorElement = document.querySelector("#error");

// A phone may unload this page while its owner reads the SMS, so sessionStorage keeps
// the verification's URL until the tab is closed.
let verificationUrl = sessionStorage.getItem("verification");
// Whether the user needs a new code.
let spent = false;
// When the user may ask for a new code, by this browser's clock.
let resendAt = 0;
let busy = false;

// --- The API ---

async function call(method, url, body) {
  try {
    const response = await fetch(url, {
      method,
      body: body && JSON.stringify(body),
      headers: {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "X-CSRFToken": cookie("csrftoken"),
      },
      signal: AbortSignal.timeout(20000),
    });
    return { status: response.status, headers: response.headers, data: await response.json() };
  } catch {
    return { status: 0, data: { detail: texts.offline } };
  }
}

function cookie(name) {
  const match = document.cookie.match(`(?:^|; )${name}=([^;]*)`);
  return match ? decodeURIComponent(match[1]) : "";
}

async function start() {
  const response = await call("POST", page.dataset.startUrl, { phone_number: number.value });
  if (response.status === 202) {
    remember(response.headers.get("Location"));
    code.value = "";
    poll(response);
  } else {
    // When a new code is refused, the user can still enter an earlier one.
    if (response.data.retry_after) resendAt = Date.now() + response.data.retry_after * 1000;
    showRefusal(response, codeForm.hidden ? number : code);
  }
}

// Poll until the code is sent, or has failed, or another verification has started.
async function poll(response) {
  const polledUrl = verificationUrl;
  for (let pause = 400; verificationUrl === polledUrl; pause = Math.min(pause * 1.2, 3000)) {
    if (response.status === 404) return reset();
    if (response.data.status) show(response);
    else showRefusal(response);
    if (response.data.status && !isPending(response.data)) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
    response = await call("GET", polledUrl);
  }
}

async function check() {
  showStatus(texts.checking);
  const checkedUrl = verificationUrl;
  const response = await call("POST", `${verificationUrl}confirm/`, { code: code.value.replace(/\s/g, "") });
  if (verificationUrl !== checkedUrl) return;
  showStatus("");
  if (response.status === 200) {
    show(response);
    if (!response.data.is_verified && !spent) {
      showError(texts.wrong.replace("{left}", response.data.checks_left), code);
    }
  } else if (response.status === 410 || response.data.code === "number_taken") {
    poll(await call("GET", verificationUrl));
  } else {
    showRefusal(response, code);
  }
}

// --- State ---

function isPending(verification) {
  return ["queued", "sending"].includes(verification.status);
}

function remember(url) {
  verificationUrl = url;
  sessionStorage.setItem("verification", verificationUrl);
}

function forget() {
  verificationUrl = null;
  sessionStorage.removeItem("verification");
  spent = false;
}

function reset() {
  forget();
  code.value = "";
  showStatus("");
  showForm(numberForm, number);
}

// --- Display ---

function show({ data, headers }) {
  // The server's clock and the browser's clock may differ.
  const now = Date.parse(headers.get("Date")) || Date.now();
  resendAt = Date.now() + Date.parse(data.resend_at) - now;
  spent = data.code_spent;
  showError("");
  if (data.failure === "number_taken") {
    reset();
    showError(texts.number_taken, number);
  } else if (data.status === "verified") {
    forget();
    showStatus(texts.confirmed);
    location.assign(page.dataset.profileUrl);
  } else if (data.status === "failed") {
    reset();
    showError(texts[data.failure], data.failure === "number_refused" && number);
  } else if (isPending(data)) {
    showStatus(texts.sending.replace("{number}", data.phone_number));
  } else {
    showForm(codeForm, code);
    showStatus(spent ? "" : texts.enter.replace("{number}", data.phone_number));
    if (spent) showError(texts[data.status] || texts.spent, errorElement);
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
  statusElement.textContent = text;
}

// Moves the focus to the place that needs attention, and marks it if it is an input.
function showError(text, place) {
  // Setting the same text again would make a screen reader repeat it.
  if (errorElement.textContent !== text) errorElement.textContent = text;
  for (const input of [number, code]) input.setAttribute("aria-invalid", input === place);
  if (place) place.focus();
}

// The API explains a refusal as `detail` or as messages for a field.
function showRefusal({ status, data }, input) {
  const text = data.detail || Object.values(data).flat()[0];
  const wait = data.retry_after ? texts.wait.replace("{seconds}", data.retry_after) : "";
  showError(`${text} ${wait}`.trim(), status === 400 && input);
  if (input) input.focus();
}

// The countdown is on the button, so that it does not interrupt a screen reader.
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
  // The number is empty if the page was reloaded after the start.
  if (number.value) run(start);
  else reset();
});
change.addEventListener("click", reset);
setInterval(refresh, 250);
if (verificationUrl) {
  call("GET", verificationUrl).then((response) => {
    if (response.data.code_spent) reset();
    else poll(response);
  });
}
