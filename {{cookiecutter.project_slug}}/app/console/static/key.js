// #/keys/ID: one key, its usage and its history.

import { get } from "./api.js";
import { button, copyButton, el, userText } from "./dom.js";
import { timeline } from "./events.js";
import { ago, date, expiry } from "./format.js";
import { editKey, renewKey, revokeKey, rotateKey, setEnabled } from "./key_actions.js";
import { ownerOf, scopeList, statusBadge } from "./key_columns.js";
import { problemBox } from "./problems.js";
import { can, hasUsage, isOwnKey, session } from "./session.js";
import { usagePanel } from "./usage.js";

/**
 * @typedef {import("./session.js").ApiKey} ApiKey
 * @typedef {import("./main.js").Page} Page
 */

/** @param {Page} page */
export async function keyPage(page) {
  const frame = el("div", { class: "loading" }, el("h1", {}, "Key"));
  if (page.main.dataset.key !== page.id || !page.main.querySelector(".fields")) {
    page.main.replaceChildren(breadcrumb(), frame);
  }
  try {
    const key = await get(`api-keys/${encodeURIComponent(page.id)}`, {}, page.signal);
    page.main.dataset.key = page.id;
    show(page, key);
  } catch (error) {
    if (!page.signal.aborted) {
      page.main.replaceChildren(breadcrumb(), el("h1", {}, "Key"), problemBox(error, page.reload));
    }
  }
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
function show(page, key) {
  document.title = `${key.name} – API console`;
  page.main.replaceChildren(
    breadcrumb(),
    el(
      "div",
      { class: "head" },
      el("h1", {}, userText(key.name), " ", statusBadge(key.status)),
      el("div", { class: "actions" }, ...actions(page, key)),
    ),
    el("section", { class: "panel", "aria-label": "Fields" }, fields(key)),
    ...(hasUsage()
      ? [usagePanel(page, `api-keys/${key.id}/usage`, "No request has used this key")]
      : []),
    el(
      "section",
      { class: "panel", "aria-labelledby": "history" },
      el("h2", { id: "history" }, "History"),
      history(page, key),
    ),
  );
}

function breadcrumb() {
  return el("p", { class: "breadcrumb" }, el("a", { href: "#/keys" }, "← Keys"));
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
function actions(page, key) {
  if (key.status === "revoked") {
    return [];
  }
  const write = can("api_keys:write");
  const isDisabled = key.status === "disabled";
  return [
    write && button("Edit", () => editKey(page, key)),
    write && button("Renew", () => renewKey(page, key)),
    (write || isOwnKey(key)) && !isDisabled && button("Rotate", () => rotateKey(key)),
    write && button(isDisabled ? "Enable" : "Disable", () => setEnabled(page, key, isDisabled)),
    (write || isOwnKey(key)) && button("Revoke", () => revokeKey(page, key), "danger"),
  ];
}

/** @param {ApiKey} key */
function fields(key) {
  const networks = key.allowed_cidrs?.join(", ") ?? "Any";
  const id = el("span", { class: "hint" }, el("code", {}, key.id), copyButton(key.id));
  const hint = el("span", { class: "hint" }, el("code", {}, key.hint), copyButton(key.hint));
  return definitions([
    ["Hint", hint],
    ["Id", id],
    ["Owner", session().isAdmin ? ownerOf(key.user_id) : userText(session().user.email)],
    ["Scopes", scopeList(key.scopes)],
    ["Rate limit", key.rate_limit?.replace("/", " requests per ") ?? "Default of this API"],
    ["Networks", networks],
    ["Created", date(key.created_at)],
    ["Changed", ago(key.updated_at)],
    hasUsage() && ["Last used", ago(key.last_used_at ?? null)],
    ["Expires", expiry(key)],
    key.revoked_at && ["Revoked", ago(key.revoked_at)],
  ]);
}

/** @param {([string, Node | string] | null | "" | false)[]} pairs */
export function definitions(pairs) {
  const items = pairs.filter(Boolean).map((pair) => {
    const [name, value] = /** @type {[string, Node | string]} */ (pair);
    return el("div", {}, el("dt", {}, name), el("dd", {}, value));
  });
  return el("dl", { class: "fields" }, ...items);
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
function history(page, key) {
  if (!can("api_keys:read")) {
    return el("p", { class: "muted" }, "The history requires the scope api_keys:read.");
  }
  return timeline(page, `api-keys/${key.id}/events`);
}
