// The form that asks for a number: sign-up posts it to its own view, and an account to
// the API.

import { errorText, forgetKey, keyOf, oneAtATime, request, setInvalid, setText, texts } from "./page.js";

const form = document.querySelector("#number-form");
const formError = document.querySelector("#form-error");
const number = document.querySelector("#id_phone_number");
const { api, next, password, login } = form.dataset;
const run = oneAtATime();
const OF_THE_NUMBER = ["number_not_supported", "cooldown", "limit_reached", "provider_unavailable"];
let countdown = 0;

function inputs() {
  return [...form.querySelectorAll(".field input, .field select")];
}

function errorOf(input) {
  return document.querySelector(`#${input.id}_error`);
}

async function postToApi() {
  const body = { phone_number: number.value, country: form.elements.country.value };
  const key = keyOf(`${body.country} ${body.phone_number}`);
  const response = await request("POST", api, { body, headers: { "Idempotency-Key": key } });
  forgetKey(response);
  const { status, data } = response;
  if (status === 200 || status === 202 || data.id) return location.assign(next);
  if (data.code === "password_needed") return location.assign(password);
  if (data.code === "not_authenticated" || status === 401) return location.assign(login);
  if (data.phone_number) data.code = "number_not_supported";
  showRefusal(response);
}

async function postForm() {
  const response = await request("POST", location.href, { body: new FormData(form) });
  const { status, data } = response;
  if (data.next) return location.assign(data.next);
  if (status === 400 && data.errors) return showErrors(data.errors);
  showRefusal(response);
}

// Beside the number, what concerns it, and else above the form.
function showRefusal(response) {
  const { code, retry_after: wait } = response.data;
  if (!OF_THE_NUMBER.includes(code)) return showFormError(errorText(response));
  showErrors({ phone_number: [errorText(response)] });
  if (wait) countDown(code, Date.now() + wait * 1000);
}

function countDown(code, end) {
  countdown = setInterval(() => {
    const seconds = (end - Date.now()) / 1000;
    if (seconds <= 0) return showErrors({});
    setText(errorOf(number), errorText({ data: { code, retry_after: seconds } }));
  }, 250);
}

function showErrors(errors) {
  clearInterval(countdown);
  for (const input of inputs()) {
    const text = (errors[input.name] || []).join(" ");
    setText(errorOf(input), text);
    setInvalid(input, Boolean(text));
  }
  inputs().find((input) => input.hasAttribute("aria-invalid"))?.focus();
}

function showFormError(text) {
  setText(formError, text);
}

// The form names the error as the description of its field only once there is one.
for (const input of inputs()) {
  const ids = new Set((input.getAttribute("aria-describedby") || "").split(" ").filter(Boolean));
  input.setAttribute("aria-describedby", [...ids.add(errorOf(input).id)].join(" "));
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run(async () => {
    showFormError("");
    await (api ? postToApi() : postForm());
  });
});
(inputs().find((input) => input.hasAttribute("aria-invalid")) || document.querySelector("#notice.error"))?.focus();
