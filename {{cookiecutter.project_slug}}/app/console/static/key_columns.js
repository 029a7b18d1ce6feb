// The columns of lists of keys, and how parts of a key are shown.

import { el, userText } from "./dom.js";
import { ago, date, expiry } from "./format.js";
import { emailOf, hasUsage, isOwnKey, loadEmails } from "./session.js";

/** @typedef {import("./session.js").ApiKey} ApiKey */

/**
 * @param {boolean} withOwner
 * @param {string} [statusKind] "secondary" where all keys have the same status
 * @returns {import("./list.js").Column<ApiKey>[]}
 */
export function keyColumns(withOwner, statusKind = "short") {
  /** @type {import("./list.js").Column<ApiKey>[]} */
  const owner = [{ label: "Owner", cell: (key) => ownerOf(key.user_id), kind: "secondary middle" }];
  const lastUsed = [
    {
      label: "Last used",
      cell: (/** @type {ApiKey} */ key) => ago(key.last_used_at ?? null),
      kind: "secondary short",
    },
  ];
  return [
    { label: "Name", cell: nameCell },
    ...(withOwner ? owner : []),
    { label: "Scopes", cell: (key) => scopeList(key.scopes, 2), kind: "secondary long" },
    { label: "Status", cell: (key) => statusBadge(key.status), kind: statusKind },
    { label: "Created", cell: (key) => date(key.created_at), kind: "tertiary short" },
    ...(hasUsage() ? lastUsed : []),
    { label: "Expires", cell: expiry, kind: "short" },
  ];
}

/** @param {ApiKey} key */
function nameCell(key) {
  const own = isOwnKey(key) && el("span", { class: "tag" }, "This session");
  return el(
    "div",
    { class: "name" },
    el("a", { href: `#/keys/${key.id}` }, userText(key.name)),
    own,
    el("code", { class: "hint", title: key.hint }, ...hintParts(key.hint)),
  );
}

/** The end is always visible: people know a key by it. @param {string} hint */
function hintParts(hint) {
  const [start, end] = hint.split("…");
  return [el("span", {}, start), el("span", {}, `…${end}`)];
}

/**
 * The email address, as soon as it is known.
 * @param {string | null} userId
 */
export function ownerOf(userId) {
  if (userId === null) {
    return el("span", { class: "muted" }, "Command line");
  }
  const link = el("a", { href: `#/users/${userId}` }, userId.slice(0, 8));
  void showEmail(link, userId);
  return link;
}

/**
 * @param {HTMLElement} element
 * @param {string} userId
 */
async function showEmail(element, userId) {
  await loadEmails();
  element.replaceChildren(userText(await emailOf(userId)));
}

/**
 * @param {string[]} scopes
 * @param {number} [shown] how many are shown, so that rows have the same height
 */
export function scopeList(scopes, shown = scopes.length) {
  if (scopes.length === 0) {
    return el("span", { class: "muted" }, "None");
  }
  const more = scopes.length - shown;
  return el(
    "span",
    { class: "scope-list", title: scopes.join(", ") },
    ...scopes.slice(0, shown).map((scope) => el("code", {}, scope)),
    more > 0 && el("code", {}, `+${more}`),
  );
}

/** @param {string} status */
export function statusBadge(status) {
  return el("span", { class: `badge ${status}` }, status[0].toUpperCase() + status.slice(1));
}
