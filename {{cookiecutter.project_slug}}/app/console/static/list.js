// A table that loads its rows page by page.

import { get } from "./api.js";
import { button, el } from "./dom.js";
import { problemBox } from "./problems.js";

/**
 * @template Item
 * @typedef { {label: string, cell: (item: Item) => import("./dom.js").Child, kind?: string} } Column
 *   `kind` is a CSS class: "number", "short", "middle", "long", "secondary" (hidden on narrow screens) or both
 */

/**
 * @template Item
 * @param {import("./main.js").Page} page
 * @param { {label: string, path: string, query?: import("./api.js").Query,
 *   columns: Column<Item>[], empty: () => Node, limit?: number} } options
 * @returns {HTMLElement}
 */
export function list(page, { label, path, query, columns, empty, limit = 50 }) {
  const body = el("tbody");
  const more = el("div", { class: "more" });
  const table = tableOf(label, columns, body);
  const container = el("div", { class: "list" }, table, more);
  body.append(...placeholders(columns, Math.min(limit, 5)));

  /** @param {string} [cursor] */
  async function load(cursor) {
    container.setAttribute("aria-busy", "true");
    try {
      const loaded = await get(path, { ...query, limit, cursor }, page.signal);
      if (!cursor) {
        body.replaceChildren();
      }
      body.append(...loaded.items.map((/** @type {Item} */ item) => rowOf(columns, item)));
      showMore(loaded.next_cursor);
      if (!body.hasChildNodes()) {
        container.replaceChildren(empty());
      }
    } catch (error) {
      if (!page.signal.aborted) {
        more.replaceChildren(problemBox(error, () => load(cursor)));
        for (const row of body.querySelectorAll(".placeholder")) {
          row.remove();
        }
      }
    } finally {
      container.removeAttribute("aria-busy");
    }
  }

  /** @param {string | null} cursor */
  function showMore(cursor) {
    more.replaceChildren();
    if (cursor) {
      const next = /** @type {HTMLButtonElement} */ (
        button("Load more", () => {
          next.disabled = true;
          next.textContent = "Loading …";
          const last = body.lastElementChild;
          void load(cursor).then(() => focusAfter(last));
        })
      );
      more.append(next);
    }
  }

  void load();
  return container;
}

/** The keyboard goes on with the first new row. @param {Element | null} row */
function focusAfter(row) {
  const link = row?.nextElementSibling?.querySelector("a");
  link?.focus({ preventScroll: true });
}

/**
 * @template Item
 * @param {string} label
 * @param {Column<Item>[]} columns
 * @param {HTMLElement} body
 */
export function tableOf(label, columns, body) {
  const heads = columns.map((column) =>
    el("th", { scope: "col", class: column.kind }, column.label),
  );
  return el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, ...heads)), body);
}

/**
 * @template Item
 * @param {Column<Item>[]} columns
 * @param {Item} item
 */
export function rowOf(columns, item) {
  const cells = columns.map((column) => el("td", { class: column.kind }, column.cell(item)));
  return el("tr", {}, ...cells);
}

/**
 * Rows as high as those that are being loaded, so that nothing moves when they arrive.
 * @template Item
 * @param {Column<Item>[]} columns
 * @param {number} count
 */
function placeholders(columns, count) {
  return Array.from({ length: count }, () => {
    const cells = columns.map((column) =>
      el("td", { class: column.kind }, el("span", { class: "block" }, "\u00a0")),
    );
    return el("tr", { class: "placeholder", "aria-hidden": "true" }, ...cells);
  });
}

/**
 * @param {string} title
 * @param {string} text what to do next
 * @param {...import("./dom.js").Child} actions
 */
export function emptyState(title, text, ...actions) {
  return el(
    "div",
    { class: "empty" },
    el("p", { class: "title" }, title),
    el("p", {}, text),
    ...actions,
  );
}

/**
 * @param {string} label
 * @param {string} q
 * @param {(text: string) => string} hashOf
 */
export function searchForm(label, q, hashOf) {
  const input = /** @type {HTMLInputElement} */ (
    el("input", {
      type: "search",
      value: q,
      "aria-label": label,
      placeholder: label,
      maxlength: 100,
    })
  );
  const search = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = hashOf(input.value.trim());
  };
  return el(
    "form",
    { class: "search", role: "search", onsubmit: search, onsearch: search },
    input,
    el("button", { type: "submit" }, "Search"),
  );
}
