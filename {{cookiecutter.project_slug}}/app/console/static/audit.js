// #/audit: the audit log, for admins.

import { el } from "./dom.js";
import { ACTIONS, actionName, actorOf, changesOf } from "./events.js";
import { ago } from "./format.js";
import { ownerOf } from "./key_columns.js";
import { emptyState, list } from "./list.js";
import { problemBox } from "./problems.js";
import { findUser } from "./session.js";

/**
 * @typedef {import("./events.js").AuditEvent} AuditEvent
 * @typedef {import("./main.js").Page} Page
 */

/** @type {import("./list.js").Column<AuditEvent>[]} */
const COLUMNS = [
  { label: "When", cell: (event) => ago(event.created_at), kind: "short" },
  { label: "Action", cell: (event) => actionName(event.action), kind: "short" },
  { label: "By", cell: (event) => actorOf(event, "You"), kind: "secondary middle" },
  { label: "Target", cell: (event) => targetOf(event), kind: "middle" },
  { label: "Changes", cell: (event) => changesOf(event), kind: "secondary" },
];

/** @param {AuditEvent} event */
function targetOf(event) {
  const id = event.target_key_id;
  return id ? el("a", { href: `#/keys/${id}` }, el("code", {}, id)) : ownerOf(event.target_user_id);
}

/** @param {Page} page */
export async function auditPage(page) {
  const { query } = page;
  const form = filters(query);
  page.main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Audit log")), form);
  try {
    const actor = query.get("by") ? await findUser(String(query.get("by"))) : undefined;
    if (page.signal.aborted) {
      return;
    }
    if (query.get("by") && !actor) {
      page.main.append(emptyState("No match", "No user has this email address."));
      return;
    }
    page.main.append(events(page, actor?.id));
  } catch (error) {
    page.main.append(problemBox(error, page.reload));
  }
}

/**
 * @param {Page} page
 * @param {string | undefined} actorId
 */
function events(page, actorId) {
  const { query } = page;
  return list(page, {
    label: "Audit events",
    path: "audit-events",
    query: {
      action: query.get("action"),
      target_key_id: query.get("key_id"),
      actor_user_id: actorId,
      from: startOf(query.get("from"), 0),
      to: startOf(query.get("to"), 1),
    },
    columns: COLUMNS,
    empty: () => emptyState("No events", "No change matches these filters."),
  });
}

/**
 * Midnight in the user's time zone.
 * @param {string | null} day
 * @param {number} later number of days
 */
function startOf(day, later) {
  if (!day) {
    return null;
  }
  const moment = new Date(`${day}T00:00:00`);
  moment.setDate(moment.getDate() + later);
  return moment.toISOString();
}

/** @param {URLSearchParams} query */
function filters(query) {
  const value = (/** @type {string} */ name) => query.get(name) ?? "";
  const actions = Object.entries(ACTIONS).map(([action, name]) =>
    el("option", { value: action, selected: action === value("action") }, name),
  );
  const show = (/** @type {Event} */ event) => {
    event.preventDefault();
    const data = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
    const set = [...data]
      .filter(([, text]) => text)
      .map(([name, text]) => [name, String(text).trim()]);
    location.hash = `#/audit?${new URLSearchParams(set)}`;
  };
  return el(
    "form",
    { class: "filters", onsubmit: show },
    filter(
      "Action",
      el("select", { name: "action" }, el("option", { value: "" }, "All"), ...actions),
    ),
    filter("By (email)", el("input", { name: "by", type: "email", value: value("by") })),
    filter(
      "Key id",
      el("input", {
        name: "key_id",
        value: value("key_id"),
        pattern: "[0-9a-z]{16}",
        spellcheck: "false",
      }),
    ),
    filter("From", el("input", { name: "from", type: "date", value: value("from") })),
    filter("To", el("input", { name: "to", type: "date", value: value("to") })),
    el("button", { type: "submit" }, "Filter"),
  );
}

/**
 * @param {string} label
 * @param {HTMLElement} control
 */
function filter(label, control) {
  return el("label", {}, el("span", {}, label), control);
}
