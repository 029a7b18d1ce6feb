// A new key, which is shown once.

import { openDialog } from "./dialogs.js";
import { button, copyButton, el } from "./dom.js";

const CURL = new URL("../v1/users/me", document.baseURI);

/**
 * @param {string} key the secret
 * @param {import("./dom.js").Child} [note]
 * @param {() => void} [whenClosed]
 */
export function showNewKey(key, note, whenClosed = () => {}) {
  const command = `curl ${CURL} --header "Authorization: Bearer ${key}"`;
  const question = el("p", { class: "question", role: "alert" });
  const foot = el("div", { class: "dialog-foot" });
  const content = el(
    "div",
    {},
    el(
      "div",
      { class: "dialog-body" },
      el("p", { class: "warning" }, "Copy this key now. You will not see it again."),
      el("div", { class: "secret" }, el("code", { tabindex: "0" }, key), copyButton(key)),
      note ?? null,
      el("p", { class: "label" }, "Try it in a terminal:"),
      el("div", { class: "secret" }, el("code", { tabindex: "0" }, command), copyButton(command)),
      question,
    ),
    foot,
  );
  const dialog = openDialog("Your new key", content);
  dialog.addEventListener("close", whenClosed);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault(); // Escape asks first
    ask();
  });

  function ask() {
    question.textContent = "Have you saved the key? After this, nobody can see it again.";
    const back = button("Back", offer);
    foot.replaceChildren(
      back,
      button("Yes, close", () => dialog.close(), "primary"),
    );
    back.focus();
  }

  function offer() {
    question.textContent = "";
    const done = button("Done", ask, "primary");
    foot.replaceChildren(done);
    done.focus();
  }

  offer();
  content.querySelector("button")?.focus();
}
