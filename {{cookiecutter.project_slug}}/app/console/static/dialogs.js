// Dialogs with a form. They stay open until the action has succeeded.

import { button, el } from "./dom.js";
import { clearErrors, showInForm } from "./problems.js";

let count = 0;

/**
 * @param { {title: string, content: Node, action: string, isDangerous?: boolean,
 *   submit: (data: FormData) => Promise<unknown>} } options `submit` sends the request
 * @returns {HTMLFormElement}
 */
export function openForm({ title, content, action, isDangerous, submit }) {
  const kind = isDangerous ? "danger solid" : "primary";
  const confirm = /** @type {HTMLButtonElement} */ (
    el("button", { type: "submit", class: kind }, action)
  );
  const cancel = /** @type {HTMLButtonElement} */ (button("Cancel", () => dialog.close()));
  const form = /** @type {HTMLFormElement} */ (
    el(
      "form",
      { autocomplete: "off", onsubmit: send },
      el("div", { class: "dialog-body" }, content),
      el("div", { class: "dialog-foot" }, el("div", { class: "form-problem" }), cancel, confirm),
    )
  );
  const dialog = openDialog(title, form);

  /** @param {Event} event */
  async function send(event) {
    event.preventDefault();
    clearErrors(form);
    confirm.disabled = true;
    confirm.textContent = "Please wait …";
    try {
      const show = await submit(new FormData(form));
      dialog.close();
      if (typeof show === "function") {
        show();
      }
    } catch (error) {
      showInForm(form, error);
    } finally {
      confirm.disabled = false;
      confirm.textContent = action;
    }
  }

  return form;
}

/**
 * Escape closes it, and the browser returns the focus.
 * @param {string} title
 * @param {Node} content
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, content) {
  count += 1;
  const id = `dialog-${count}`;
  const dialog = /** @type {HTMLDialogElement} */ (
    el("dialog", { "aria-labelledby": id }, el("h2", { id }, title), content)
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    focusSomething();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** If the button that opened the dialog is gone. */
function focusSomething() {
  if (!document.activeElement || document.activeElement === document.body) {
    document.getElementById("main")?.focus({ preventScroll: true });
  }
}

/**
 * A dialog that only asks. If `word` is given, the user must type it.
 * @param { {title: string, text: string, action: string, word?: string, wordLabel?: string,
 *   isDangerous?: boolean, submit: () => Promise<unknown>} } options
 */
export function openConfirmation(options) {
  const { title, text, action, word, wordLabel, isDangerous = true, submit } = options;
  const content = el("div", {}, el("p", {}, text));
  if (word === undefined) {
    openForm({ title, content, action, isDangerous, submit });
    return;
  }
  const id = `confirm-${count}`;
  const input = /** @type {HTMLInputElement} */ (
    el("input", { id, name: "word", autocomplete: "off", spellcheck: "false" })
  );
  content.append(
    el(
      "div",
      { class: "field" },
      el(
        "label",
        { for: id },
        `To confirm, type ${wordLabel}: `,
        el("bdi", { class: "word" }, word),
      ),
      input,
    ),
  );
  const form = openForm({ title, content, action, isDangerous, submit });
  const confirm = /** @type {HTMLButtonElement} */ (form.querySelector("[type=submit]"));
  confirm.disabled = true;
  input.addEventListener("input", () => {
    confirm.disabled = input.value.trim() !== word.trim();
  });
}
