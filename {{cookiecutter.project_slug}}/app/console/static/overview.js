// #/overview: the usage of all visible keys, and the keys that need attention.

import { get } from "./api.js";
import { el, userText } from "./dom.js";
import { ago, inDays, number, percent } from "./format.js";
import { emptyState, rowOf, tableOf } from "./list.js";
import { problemBox } from "./problems.js";
import { hasUsage } from "./session.js";
import { usagePanel } from "./usage.js";

/**
 * @typedef {import("./session.js").ApiKey} ApiKey
 * @typedef {import("./main.js").Page} Page
 * @typedef {ApiKey & {requests: number, errors: number}} BusyKey
 */

const SHOWN = 5;

/** @type {import("./list.js").Column<BusyKey>[]} */
const BUSY_COLUMNS = [
  { label: "Name", cell: (key) => keyLink(key) },
  { label: "Requests", cell: (key) => number(key.requests), kind: "short number" },
  {
    label: "Error rate",
    cell: (key) => percent(key.requests && key.errors / key.requests),
    kind: "short number",
  },
];

/** @param {Page} page */
export async function overviewPage(page) {
  const head = el("div", { class: "head" }, el("h1", {}, "Overview"));
  const columns = el("div", { class: "columns", "aria-busy": "true" });
  page.main.replaceChildren(head);
  const expiring = attention(page, "Expire in 7 days", "expiring", { expires_before: inDays(7) });
  if (!hasUsage()) {
    page.main.append(await expiring);
    return;
  }
  const unused = attention(page, "Unused for 30 days", "unused", { unused_since: inDays(-30) });
  const busy = el("div", { class: "list" });
  const loaded = new Promise((resolve) => {
    const show = (/** @type {import("./usage.js").Usage | null} */ usage) => {
      busy.replaceChildren(usage ? busiest(usage.top ?? []) : el("p", { class: "empty" }, "–"));
      resolve(usage);
    };
    page.main.append(usagePanel(page, "usage", "No key was used", show), columns);
  });
  // All at once: a list that arrives later would move the others.
  const lists = el("div", {}, ...(await Promise.all([expiring, unused])));
  await loaded;
  columns.replaceChildren(panel("Busiest keys", busy), lists);
  columns.removeAttribute("aria-busy");
}

/**
 * @param {string} title
 * @param {...Node} content
 */
function panel(title, ...content) {
  return el("section", { class: "panel", "aria-label": title }, el("h2", {}, title), ...content);
}

/** @param {BusyKey[]} keys */
function busiest(keys) {
  if (keys.length === 0) {
    const command = `curl ${new URL("../v1/users/me", document.baseURI)} --header "Authorization: Bearer KEY"`;
    return emptyState(
      "No requests yet",
      "Send one with a key:",
      el("pre", {}, el("code", {}, command)),
    );
  }
  const body = el("tbody", {}, ...keys.map((key) => rowOf(BUSY_COLUMNS, key)));
  return tableOf("Busiest keys", BUSY_COLUMNS, body);
}

/**
 * The first to expire is first.
 * @param {ApiKey} one
 * @param {ApiKey} other
 */
function byExpiry(one, other) {
  return (one.expires_at ?? "9999").localeCompare(other.expires_at ?? "9999");
}

/** @param { {id: string, name: string} } key */
function keyLink(key) {
  return el("a", { href: `#/keys/${key.id}` }, userText(key.name));
}

/**
 * A short list of active keys, with a link to the rest.
 * @param {Page} page
 * @param {string} title
 * @param {string} tab
 * @param {import("./api.js").Query} query
 */
async function attention(page, title, tab, query) {
  const content = el("div", { class: "short-list" });

  const moment = (/** @type {ApiKey} */ key) =>
    tab === "unused" ? ago(key.last_used_at ?? null, "Never used") : ago(key.expires_at);

  async function load() {
    try {
      const found = await get(
        "api-keys",
        { status: "active", ...query, limit: SHOWN },
        page.signal,
      );
      const items = found.items
        .sort(byExpiry)
        .map((/** @type {ApiKey} */ key) => el("li", {}, keyLink(key), moment(key)));
      const all = found.next_cursor && el("a", { href: `#/keys?tab=${tab}` }, "Show all");
      content.replaceChildren(
        items.length > 0 ? el("ul", {}, ...items) : el("p", { class: "muted" }, "None."),
        ...(all ? [all] : []),
      );
    } catch (error) {
      if (!page.signal.aborted) {
        content.replaceChildren(problemBox(error, load));
      }
    }
  }

  await load();
  return panel(title, content);
}
