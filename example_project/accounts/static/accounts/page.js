// What the pages share: the texts, requests, and waits as people say them.

export const texts = JSON.parse(document.querySelector("#texts").textContent);

const relative = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "always" });
const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TIMEOUT = 20000;

// Returns { status, data, date }. The status is 0 where no answer came, and data is {}
// where it is no JSON, such as the error page of a proxy.
export async function request(method, url, { body, headers = {} } = {}) {
  const isForm = body instanceof FormData;
  const type = body && !isForm ? { "Content-Type": "application/json" } : {};
  try {
    const response = await fetch(url, {
      method,
      body: body && !isForm ? JSON.stringify(body) : body,
      headers: { Accept: "application/json", "X-CSRFToken": csrfToken(), ...type, ...headers },
      signal: AbortSignal.timeout(TIMEOUT),
    });
    const date = Date.parse(response.headers.get("Date")) || Date.now();
    const data = await response.json().catch(() => ({}));
    return { status: response.status, data, date };
  } catch {
    return { status: 0, data: { code: "offline" }, date: Date.now() };
  }
}

// Another tab may have logged in, which changes the token.
function csrfToken() {
  const match = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/);
  return match ? decodeURIComponent(match[1]) : "";
}

// The sentence for an answer that refused. What a machine wrote is never shown.
export function errorText({ status, data }) {
  const code = data.code || { 401: "not_authenticated", 403: "permission_denied", 404: "not_found" }[status];
  return (texts.errors[code] || texts.errors.other).replace("{wait}", inTime(data.retry_after));
}

export function inTime(seconds) {
  if (!(seconds >= 0)) return texts.later;
  const whole = Math.max(1, Math.ceil(seconds));
  if (whole < MINUTE) return relative.format(whole, "second");
  if (whole <= HOUR - MINUTE) return relative.format(Math.ceil(whole / MINUTE), "minute");
  if (whole <= DAY - HOUR) return relative.format(Math.ceil(whole / HOUR), "hour");
  return relative.format(Math.ceil(whole / DAY), "day");
}

// Setting the same text again would make a screen reader repeat it.
export function setText(element, text) {
  if (element.textContent.trim() !== text) element.textContent = text;
}

export function setInvalid(input, isInvalid) {
  if (isInvalid) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

// One key for each wish to get a code, kept until the server has answered: a repetition
// after a lost answer sends no second SMS.
export function keyOf(wish) {
  const kept = JSON.parse(sessionStorage.getItem("wish") || "null");
  if (kept && kept.wish === wish) return kept.key;
  const random = crypto.getRandomValues(new Uint8Array(16));
  const key = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("wish", JSON.stringify({ wish, key }));
  return key;
}

// 5xx with no JSON may come from a proxy, behind which the server has done it.
export function forgetKey({ status, data }) {
  if (status && (status < 500 || data.code)) sessionStorage.removeItem("wish");
}

// Runs one task at a time: a double click does it once.
export function oneAtATime() {
  let isBusy = false;
  return async (task) => {
    if (isBusy) return;
    isBusy = true;
    document.body.setAttribute("aria-busy", "true");
    try {
      await task();
    } finally {
      isBusy = false;
      document.body.removeAttribute("aria-busy");
    }
  };
}
