// The form for the key.

import { useKey } from "./api.js";
import { fromTemplate } from "./dom.js";
import { Problem, problemBox } from "./problems.js";

/**
 * @param {HTMLElement} main
 * @param {string} reason why the user was signed out
 * @param {() => Promise<void>} enter called with the key in use
 */
export function signInPage(main, reason, enter) {
  main.replaceChildren(fromTemplate("sign-in"));
  const form = /** @type {HTMLFormElement} */ (main.querySelector("form"));
  const input = /** @type {HTMLInputElement} */ (form.elements.namedItem("key"));
  const keep = /** @type {HTMLInputElement} */ (form.elements.namedItem("keep"));
  const submit = /** @type {HTMLButtonElement} */ (form.querySelector("[type=submit]"));
  if (reason) {
    showProblem(form, new Problem(0, reason));
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const key = input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      showProblem(form, new Problem(0, "This is not an API key."));
      return;
    }
    submit.disabled = true;
    submit.textContent = "Signing in …";
    useKey(key, false);
    try {
      await enter();
      useKey(key, keep.checked);
    } catch (error) {
      showProblem(form, error); // after a 401, this form was replaced by one with the reason
    } finally {
      input.value = "";
      submit.disabled = false;
      submit.textContent = "Sign in";
    }
  });
  input.focus();
}

/**
 * @param {HTMLFormElement} form
 * @param {unknown} error
 */
function showProblem(form, error) {
  form.parentElement?.querySelector(".problem")?.remove();
  form.before(problemBox(error));
}
