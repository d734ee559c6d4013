// The page of the code: follows its state, takes the code, and asks for a new one.

import { errorText, forgetKey, inTime, keyOf, oneAtATime, request, setInvalid, setText, texts } from "./page.js";

const find = (id) => document.querySelector(`#${id}`);
const panel = find("panel");
const [statusText, errorElement] = [find("status"), find("error")];
const [codeForm, code, old] = [find("code-form"), find("code"), find("old")];
const [resendForm, resend, wait] = [find("resend-form"), find("resend"), find("wait")];
const urls = panel.dataset;
const run = oneAtATime();

const FIRST_PAUSE = 400, LONGEST_PAUSE = 30000;
const STOPPED_BY = [401, 403, 404];

// What the server said last, and when by its clock.
let verification = JSON.parse(find("verification").textContent);
let { statusUrl, confirmUrl } = urls;
let checkWasLost = verification.state === "lost", isEarlier = verification.state === "earlier";
let state = stateOf(verification);
// By how much this browser's clock is ahead of the server's, and moments by the former.
let offset = Infinity;
let resendAt = 0, refusedUntil = 0, oldAt = 0;
// The last answer that asked for a wait, until the wait is over.
let refusal = null;
// When the newest one that the server knew was made, by its own clock.
let newest = Date.parse(urls.newest);
let timer = 0, pause = FIRST_PAUSE, hasStopped = false;
let hasSubmittedByItself = false;

// --- State ---

// The site's own view names it, and the API does not.
function stateOf({ state: named, status, failure, code_spent: isSpent }) {
  if (named) return named;
  if (failure) return failure;
  if (status === "queued" || status === "sending") return "sending";
  if (status === "sent" && isSpent) return "lost";
  if (status === "locked" && checkWasLost) return "lost";
  return status === "sent" && isEarlier ? "earlier" : status;
}

function keepTimes(date) {
  // A Date header lacks the parts of a second, and an answer takes a while.
  offset = Math.min(offset, Date.now() - date);
  resendAt = Math.max(Date.parse(verification.resend_at) + offset, refusedUntil);
  // A code expires so long after it was sent. Without that moment, none was sent.
  const sentAt = Date.parse(verification.expires_at ?? "") - urls.lifetime * 1000;
  oldAt = sentAt + urls.validFor * 1000 + offset;
}

function show({ data, date }) {
  const [oldState, hadFocus] = [state, panel.contains(document.activeElement)];
  verification = data;
  state = stateOf(data);
  keepTimes(date);
  // The server logs in, or shows the profile.
  if (state === "verified") return location.assign(urls.doneUrl);
  // The server looks for an earlier code that still works.
  if (data.failure && oldState === "sending" && urls.currentUrl) return location.reload();
  const { text, takes_code: takesCode, resends } = texts.states[state];
  setText(statusText, text.replace("{number}", data.phone_number));
  codeForm.hidden = !takesCode;
  resendForm.hidden = !resends;
  tick();
  if (state === oldState) return;
  showError("");
  if (takesCode) code.focus();
  else if (hadFocus || document.activeElement === document.body) focusNextAction();
}

// Where the code is of no use any more, the next action is a new code or number.
function focusNextAction() {
  if (state !== "sending") (resendForm.hidden ? find("change") : resend).focus();
}

function showError(text) {
  refusal = null;
  find("log-in").hidden = true;
  errorElement.setAttribute("role", "alert");
  setText(errorElement, text);
  setInvalid(code, false);
}

function showRefusal(response) {
  const { status, data } = response;
  showError(errorText(response));
  setInvalid(code, data.code === "invalid_code");
  if (data.retry_after) refusal = { status, data, endsAt: Date.now() + data.retry_after * 1000 };
  find("log-in").hidden = !(status === 401 || data.code === "not_authenticated");
  if (!codeForm.hidden) code.focus();
}

// A countdown is no live region, so that it does not interrupt a screen reader.
function tick() {
  if (refusal) countDownRefusal(refusal);
  const seconds = (resendAt - Date.now()) / 1000;
  setText(wait, seconds > 0 ? texts.wait.replace("{wait}", inTime(seconds)) : "");
  resend.setAttribute("aria-disabled", String(seconds > 0));
  old.hidden = !(Date.now() > oldAt);
}

function countDownRefusal({ status, data, endsAt }) {
  const seconds = (endsAt - Date.now()) / 1000;
  if (seconds <= 0) return showError("");
  errorElement.removeAttribute("role");
  setText(errorElement, errorText({ status, data: { ...data, retry_after: seconds } }));
}

// --- Polling ---

function schedule() {
  clearTimeout(timer);
  if (state === "sending" || texts.states[state].takes_code) timer = setTimeout(poll, pause);
  pause = Math.min(pause * (state === "sending" ? 1.3 : 2), LONGEST_PAUSE);
}

async function poll() {
  const url = statusUrl;
  const response = await request("GET", url);
  if (url !== statusUrl) return;
  if (STOPPED_BY.includes(response.status)) return stop(response);
  if (response.data.next) return location.assign(response.data.next);
  if (response.status === 200) {
    if (hasStopped) showError("");
    hasStopped = false;
    show(response);
  }
  schedule();
}

// Until the return to the page: by then, the visitor may be logged in again.
function stop(response) {
  hasStopped = true;
  showRefusal(response);
}

// After a return to the page, ask at once: another tab or device may have gone on.
async function resume() {
  pause = FIRST_PAUSE;
  clearTimeout(timer);
  if (urls.currentUrl) {
    const { status, data } = await request("GET", urls.currentUrl);
    if (status === 200 && Date.parse(data.created_at) > newest) follow(data);
  }
  poll();
}

function follow({ url, created_at: createdAt }) {
  newest = Date.parse(createdAt);
  [statusUrl, confirmUrl] = [url, `${url}confirm/`];
  isEarlier = false;
}

// --- The code ---

// The one group of four digits in whatever was pasted, such as a whole SMS.
function codeIn(text) {
  const groups = new Set(text.match(/(?<![0-9])[0-9]{4}(?![0-9])/g));
  if (groups.size === 1) return [...groups][0];
  const digits = text.replace(/\s/g, "");
  return /^[0-9]{4}$/.test(digits) ? digits : "";
}

async function confirm() {
  const entered = codeIn(code.value.normalize("NFKC"));
  if (!entered) return showRefusal({ data: { code: "invalid_code" } });
  code.value = entered;
  showError("");
  const body = urls.currentUrl ? { code: entered } : formWith(entered);
  const response = await request("POST", confirmUrl, { body });
  const { status, data } = response;
  if (data.next) return location.assign(data.next);
  if (status === 200) return showVerdict(response);
  checkWasLost ||= data.code === "check_unknown";
  // The state tells what these mean.
  if (status !== 410 && data.code !== "number_taken") showRefusal(response);
  if (!STOPPED_BY.includes(status) && status) await refresh();
}

function formWith(entered) {
  const form = new FormData(codeForm);
  form.set("code", entered);
  return form;
}

function showVerdict(response) {
  show(response);
  if (!texts.states[state]?.takes_code) return;
  showError(`${texts.errors.wrong_code} ${texts.tries[verification.checks_left]}`);
  setInvalid(code, true);
  code.select();
  code.focus();
}

async function refresh() {
  const response = await request("GET", statusUrl);
  if (response.status === 200) show(response);
}

codeForm.addEventListener("submit", (event) => {
  event.preventDefault();
  run(confirm);
});
code.addEventListener("input", (event) => {
  const isTyped = event.inputType === "insertText" || event.inputType?.startsWith("delete");
  const found = codeIn(code.value.normalize("NFKC"));
  if (!found || (isTyped && hasSubmittedByItself)) return;
  hasSubmittedByItself = true;
  code.value = found;
  run(confirm);
});

// --- A new code ---

async function askAgain() {
  if (resendAt > Date.now()) return;
  showError("");
  const headers = { "Idempotency-Key": keyOf(`again ${statusUrl}`) };
  const response = await request("POST", resendForm.action, { body: new FormData(resendForm), headers });
  forgetKey(response);
  if (response.data.next) return location.assign(response.data.next);
  // Others may have asked for codes to this number, which its own state does not tell.
  if (response.data.retry_after) resendAt = refusedUntil = Date.now() + response.data.retry_after * 1000;
  tick();
  showRefusal(response);
}

resendForm.addEventListener("submit", (event) => {
  event.preventDefault();
  run(askAgain);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) resume();
});
// Also from the browser's cache of pages, by the back button.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) resume();
});
window.addEventListener("online", resume);

keepTimes(Date.parse(urls.serverTime));
tick();
setInterval(tick, 250);
if (!codeForm.hidden) code.focus();
schedule();
