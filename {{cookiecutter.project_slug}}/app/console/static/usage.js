// The panel with the totals and the chart, for one key or for all.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { el } from "./dom.js";
import { inDays, percent, total } from "./format.js";
import { problemBox } from "./problems.js";

/**
 * @typedef { {total: number, errors: number, buckets: import("./chart.js").Bucket[],
 *   top?: (import("./session.js").ApiKey & {requests: number, errors: number})[]} } Usage
 */

/** Name, days, granularity. @type {[string, number, import("./chart.js").Granularity][]} */
const RANGES = [
  ["24 hours", 1, "hour"],
  ["7 days", 7, "day"],
  ["30 days", 30, "day"],
  ["90 days", 90, "day"],
];
const DEFAULT = 2;

// The server writes its counts every few seconds, so the first request is not in the first chart.
const RETRY_MILLISECONDS = 3000;
const RETRIES = 3;

/**
 * @param {import("./main.js").Page} page
 * @param {string} path
 * @param {string} emptyText what is shown in place of an empty chart
 * @param {(usage: Usage | null) => void} [whenLoaded] null: it failed
 * @returns {HTMLElement}
 */
export function usagePanel(page, path, emptyText, whenLoaded = () => {}) {
  const totals = el("dl", { class: "totals" });
  const plot = el("div", { class: "plot-area", "aria-busy": "true" });
  const buttons = RANGES.map(([name], index) =>
    el("button", { type: "button", "aria-pressed": "false", onclick: () => load(index) }, name),
  );
  let latest = 0;
  let retries = RETRIES;

  /** @param {number} index */
  async function load(index) {
    latest += 1;
    const mine = latest;
    const [, days, granularity] = RANGES[index];
    for (const [number, element] of buttons.entries()) {
      element.setAttribute("aria-pressed", String(number === index));
    }
    plot.setAttribute("aria-busy", "true");
    // The period has whole buckets: the first day is not cut.
    const from = inDays(granularity === "day" ? 1 - days : -1);
    try {
      const usage = await get(path, { from, granularity }, page.signal);
      if (mine === latest) {
        show(usage, granularity);
        whenLoaded(usage);
        retryIfEmpty(usage, index);
      }
    } catch (error) {
      if (mine === latest && !page.signal.aborted) {
        plot.replaceChildren(problemBox(error, () => load(index)));
        whenLoaded(null);
      }
    } finally {
      plot.removeAttribute("aria-busy");
    }
  }

  /**
   * @param {Usage} usage
   * @param {number} index
   */
  function retryIfEmpty(usage, index) {
    const mine = latest;
    if (usage.total === 0 && retries > 0) {
      retries -= 1;
      setTimeout(() => {
        if (mine === latest && !page.signal.aborted) {
          void load(index);
        }
      }, RETRY_MILLISECONDS);
    }
  }

  /**
   * @param {Usage} usage
   * @param {import("./chart.js").Granularity} granularity
   */
  function show(usage, granularity) {
    totals.replaceChildren(...totalsOf(usage));
    const empty =
      usage.total === 0 &&
      el("p", { class: "plot-empty" }, el("span", {}, `${emptyText} in this period.`));
    plot.replaceChildren(chart(usage.buckets, granularity));
    if (empty) {
      plot.append(empty);
    }
  }

  totals.replaceChildren(...totalsOf(null));
  void load(DEFAULT);
  return el(
    "section",
    { class: "panel usage", "aria-labelledby": "usage" },
    el(
      "div",
      { class: "head" },
      el("h2", { id: "usage" }, "Usage"),
      el("div", { class: "segments", role: "group", "aria-label": "Period" }, ...buttons),
    ),
    totals,
    plot,
  );
}

/** @param {Usage | null} usage null while it is loading */
function totalsOf(usage) {
  const rate = usage?.total ? percent(usage.errors / usage.total) : "–";
  const values = [
    ["Requests", usage ? total(usage.total) : "–"],
    ["Errors", usage ? total(usage.errors) : "–"],
    ["Error rate", rate],
  ];
  return values.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}
