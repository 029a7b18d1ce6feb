// #/keys: the list of keys.

import { button, el } from "./dom.js";
import { inDays } from "./format.js";
import { createKey } from "./key_actions.js";
import { keyColumns } from "./key_columns.js";
import { emptyState, list, searchForm } from "./list.js";
import { can, hasUsage, session } from "./session.js";

/**
 * @typedef { {name: string, label: string, query: () => import("./api.js").Query,
 *   empty: string, advice: string} } Tab
 */

/** @type {Tab[]} */
const TABS = [
  {
    name: "active",
    label: "Active",
    query: () => ({ status: "active" }),
    empty: "No active keys",
    advice: "Create a key for each program that calls this API.",
  },
  {
    name: "expiring",
    label: "Expiring in 7 days",
    query: () => ({ status: "active", expires_before: inDays(7) }),
    empty: "No key expires soon",
    advice: "Keys that expire within 7 days are listed here. Renew or rotate them in time.",
  },
  {
    name: "unused",
    label: "Unused for 30 days",
    query: () => ({ status: "active", unused_since: inDays(-30) }),
    empty: "All keys are in use",
    advice:
      "Keys that nothing has used for 30 days are listed here. Revoke those that you do not need.",
  },
  {
    name: "disabled",
    label: "Disabled",
    query: () => ({ status: "disabled" }),
    empty: "No disabled keys",
    advice: "Disable a key on its page to reject it for a while.",
  },
  {
    name: "expired",
    label: "Expired",
    query: () => ({ status: "expired" }),
    empty: "No expired keys",
    advice: "An expired key can be renewed on its page.",
  },
  {
    name: "revoked",
    label: "Revoked",
    query: () => ({ status: "revoked" }),
    empty: "No revoked keys",
    advice: "Revoked keys are rejected permanently, and stay listed here.",
  },
];

/** @param {import("./main.js").Page} page */
export function keysPage(page) {
  const tabs = TABS.filter((tab) => tab.name !== "unused" || hasUsage());
  const tab = tabs.find((one) => one.name === page.query.get("tab")) ?? tabs[0];
  const q = page.query.get("q") ?? "";
  const links = tabs.map((one) =>
    el("a", { href: hash(one.name, q), "aria-current": one === tab && "page" }, one.label),
  );
  page.main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Keys"), createButton(page)),
    el("nav", { class: "tabs", "aria-label": "Status" }, ...links),
    searchForm("Search by name", q, (text) => hash(tab.name, text)),
    list(page, {
      label: "Keys",
      path: "api-keys",
      query: { ...tab.query(), q },
      columns: keyColumns(session().isAdmin, "secondary short"),
      empty: () => emptyTab(page, tab, q),
    }),
  );
}

/** @param {import("./main.js").Page} page */
function createButton(page) {
  return can("api_keys:write") && button("Create key", () => createKey(page), "primary");
}

/**
 * @param {import("./main.js").Page} page
 * @param {Tab} tab
 * @param {string} q
 */
function emptyTab(page, tab, q) {
  if (q) {
    return emptyState("No match", `No key in “${tab.label}” has a name that contains “${q}”.`);
  }
  return emptyState(tab.empty, tab.advice, tab.name === "active" && createButton(page));
}

/**
 * @param {string} tab
 * @param {string} q
 */
function hash(tab, q) {
  return `#/keys?${new URLSearchParams(q ? { tab, q } : { tab })}`;
}
