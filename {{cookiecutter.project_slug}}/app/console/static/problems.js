// Errors of the API (RFC 9457), and how they are shown.

import { button, copyButton, el } from "./dom.js";

export class Problem extends Error {
  /**
   * @param {number} status 0: there was no response
   * @param {string} detail
   * @param {string} [requestId]
   * @param { {pointer: string, detail: string}[]} [errors]
   */
  constructor(status, detail, requestId = "", errors = []) {
    super(detail);
    this.status = status;
    this.detail = detail;
    this.requestId = requestId;
    this.errors = errors;
  }

  static ofNetwork() {
    return new Problem(0, "The server does not respond. Check your connection, and try again.");
  }

  /** @param {Response} response */
  static async of(response) {
    const body = await response.json().catch(() => ({}));
    const seconds = response.headers.get("Retry-After");
    let detail = body.detail ?? `The server responded with the status ${response.status}.`;
    if (response.status === 429 && seconds) {
      detail = `The rate limit of your key is exceeded. Try again in ${seconds} seconds.`;
    }
    if (response.status === 422 && body.errors) {
      detail = "Some values are not valid.";
    }
    const requestId = response.headers.get("X-Request-ID") ?? "";
    return new Problem(response.status, detail, requestId, body.errors);
  }
}

/**
 * Also for errors in our own code, which the browser's console shows.
 * @param {unknown} error
 * @returns {Problem}
 */
export function asProblem(error) {
  if (error instanceof Problem) {
    return error;
  }
  console.error(error);
  return new Problem(0, "This page has a defect. Reload it, and try again.");
}

/**
 * @param {unknown} error
 * @param {() => unknown} [retry]
 */
export function problemBox(error, retry) {
  const problem = asProblem(error);
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", {}, problem.detail),
    problem.errors.length > 0 && errorList(problem.errors),
    problem.requestId && requestId(problem.requestId),
    retry && button("Try again", retry),
  );
}

/** @param { {pointer: string, detail: string}[]} errors */
function errorList(errors) {
  const items = errors.map((one) => el("li", {}, `${one.pointer}: ${one.detail}`));
  return el("ul", {}, ...items);
}

/** @param {string} id */
function requestId(id) {
  const label = el("span", { class: "muted" }, "Request id ");
  return el("p", { class: "request-id" }, label, el("code", {}, id), " ", copyButton(id));
}

/**
 * Show the errors at the fields of a form, and the rest in a box.
 * @param {HTMLElement} form
 * @param {unknown} error
 */
export function showInForm(form, error) {
  clearErrors(form);
  const problem = asProblem(error);
  const others = problem.errors.filter((one) => !showAtField(form, one));
  const box = problemBox(new Problem(problem.status, problem.detail, problem.requestId, others));
  form.querySelector(".form-problem")?.replaceChildren(box);
  const first = /** @type {HTMLElement | null} */ (form.querySelector("[aria-invalid]"));
  first?.focus();
  first?.closest(".field")?.scrollIntoView({ block: "center" });
}

/** @param {HTMLElement} form */
export function clearErrors(form) {
  form.querySelector(".form-problem")?.replaceChildren();
  for (const message of form.querySelectorAll(".field-error")) {
    message.remove();
  }
  for (const control of form.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
}

/**
 * @param {HTMLElement} form
 * @param { {pointer: string, detail: string} } error
 * @returns {boolean} whether the form has the field
 */
function showAtField(form, error) {
  const name = CSS.escape(error.pointer.split("/")[2] ?? "");
  const control = form.querySelector(`[name="${name}"]`);
  const field = control?.closest(".field");
  if (!control || !field) {
    return false;
  }
  const id = `error-${name}`;
  field.append(el("p", { class: "field-error", id }, error.detail));
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-describedby", id);
  return true;
}
