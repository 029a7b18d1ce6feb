// Audit events, as a timeline.

import { get } from "./api.js";
import { button, el } from "./dom.js";
import { ago } from "./format.js";
import { ownerOf } from "./key_columns.js";
import { problemBox } from "./problems.js";
import { session } from "./session.js";

/**
 * @typedef { {id: string, created_at: string, action: string, actor_user_id: string | null,
 *   actor_key_id: string | null, target_user_id: string, target_key_id: string | null,
 *   changes: Record<string, [unknown, unknown] | null>} } AuditEvent
 */

/** @type {Record<string, string>} */
export const ACTIONS = {
  "api_key.created": "Key created",
  "api_key.updated": "Key changed",
  "api_key.renewed": "Key renewed",
  "api_key.rotated": "Key rotated",
  "api_key.revoked": "Key revoked",
  "user.created": "User created",
  "user.updated": "User changed",
  "user.deleted": "User deleted",
};

/** Fields whose names are not plain English. @type {Record<string, string>} */
const FIELDS = {
  allowed_cidrs: "networks",
  expires_at: "expiry",
  is_active: "active",
  is_admin: "admin",
};

/**
 * @param {import("./main.js").Page} page
 * @param {string} path
 */
export function timeline(page, path) {
  const items = el("ol", { class: "timeline" }, el("li", { class: "block" }, "\u00a0"));
  const more = el("div", { class: "more" });

  /** @param {string} [cursor] */
  async function load(cursor) {
    try {
      const loaded = await get(path, { limit: 20, cursor }, page.signal);
      if (!cursor) {
        items.replaceChildren();
      }
      items.append(...loaded.items.map(item));
      more.replaceChildren();
      if (loaded.next_cursor) {
        more.append(button("Load more", () => load(loaded.next_cursor)));
      } else if (!items.hasChildNodes()) {
        items.replaceWith(el("p", { class: "muted" }, "No change was recorded."));
      }
    } catch (error) {
      if (!page.signal.aborted) {
        items.querySelector(".block")?.remove();
        more.replaceChildren(problemBox(error, () => load(cursor)));
      }
    }
  }

  void load();
  return el("div", {}, items, more);
}

/** @param {AuditEvent} event */
function item(event) {
  return el(
    "li",
    {},
    el(
      "p",
      {},
      el("strong", {}, actionName(event.action)),
      " by ",
      actorOf(event),
      " ",
      ago(event.created_at),
    ),
    changesOf(event),
  );
}

/** @param {string} action */
export function actionName(action) {
  return ACTIONS[action] ?? action;
}

/**
 * @param {AuditEvent} event
 * @param {string} [you]
 */
export function actorOf(event, you = "you") {
  const { user, isAdmin } = session();
  if (event.actor_user_id === user.id) {
    return you;
  }
  if (isAdmin || event.actor_user_id === null) {
    return ownerOf(event.actor_user_id);
  }
  return "an admin";
}

/** @param {AuditEvent} event */
export function changesOf(event) {
  const names = Object.keys(event.changes);
  if (names.length === 0) {
    return null;
  }
  const lines = names.map((name) => {
    const values = event.changes[name];
    const text = values ? `: ${show(values[0])} → ${show(values[1])}` : "";
    return el("li", {}, `${FIELDS[name] ?? name.replaceAll("_", " ")}${text}`);
  });
  return el("ul", { class: "changes" }, ...lines);
}

/** @param {unknown} value */
function show(value) {
  if (value === null || (Array.isArray(value) && value.length === 0)) {
    return "none";
  }
  if (typeof value === "boolean") {
    return value ? "yes" : "no";
  }
  const text = Array.isArray(value) ? value.join(", ") : String(value);
  return text.replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*$/, "$1 $2 UTC");
}
