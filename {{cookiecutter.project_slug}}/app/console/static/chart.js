// One stacked bar chart: requests, and the errors among them.

import { el, svg } from "./dom.js";
import { bucketName, number, plural, shortNumber } from "./format.js";

const HEIGHT = 100; // units of the drawing, which is stretched to the size that CSS gives it
const WIDTH = 10; // of a bar, with its gap

/**
 * @typedef { {start: string, requests: number, errors: number} } Bucket
 * @typedef {"hour" | "day"} Granularity
 */

/**
 * @param {Bucket[]} buckets
 * @param {Granularity} granularity
 * @returns {HTMLElement}
 */
export function chart(buckets, granularity) {
  const top = niceMaximum(Math.max(...buckets.map((bucket) => bucket.requests)));
  const drawing = svg(
    "svg",
    {
      viewBox: `0 0 ${buckets.length * WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": summary(buckets, granularity),
    },
    ...buckets.map((bucket, index) => bar(bucket, index, top)),
  );
  const readout = el("p", { class: "readout muted" }, "\u00a0");
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * buckets.length);
    const bucket = buckets[Math.max(0, Math.min(index, buckets.length - 1))];
    readout.textContent = describe(bucket, granularity);
  });
  drawing.addEventListener("pointerleave", () => readout.replaceChildren("\u00a0"));
  return el(
    "figure",
    { class: "chart" },
    el("div", { class: "legend" }, key("requests", "Successful"), key("errors", "Errors"), readout),
    el(
      "div",
      { class: "plot" },
      el("div", { class: "scale", "aria-hidden": "true" }, ...scale(top)),
      drawing,
    ),
    el("div", { class: "axis", "aria-hidden": "true" }, ...axis(buckets, granularity)),
  );
}

/**
 * @param {Bucket} bucket
 * @param {number} index
 * @param {number} top
 */
function bar({ requests, errors }, index, top) {
  const heightOf = (/** @type {number} */ count) =>
    count ? Math.max(1, (count / top) * HEIGHT) : 0;
  const failed = heightOf(errors);
  const whole = Math.max(heightOf(requests), failed);
  const box = { x: index * WIDTH + WIDTH * 0.12, width: WIDTH * 0.76 };
  return svg(
    "g",
    {},
    svg("rect", { ...box, y: HEIGHT - whole, height: whole - failed, class: "requests" }),
    svg("rect", { ...box, y: HEIGHT - failed, height: failed, class: "errors" }),
  );
}

/** The next round number. @param {number} maximum */
function niceMaximum(maximum) {
  const power = 10 ** Math.floor(Math.log10(Math.max(maximum, 4)));
  return (
    [1, 2, 3, 4, 6, 8, 10]
      .map((factor) => factor * power)
      .find((one) => one >= Math.max(maximum, 4)) ?? 10
  );
}

/** @param {number} top */
function scale(top) {
  return [top, top / 2, 0].map((value) => el("span", {}, shortNumber(value)));
}

/**
 * The first bucket, the middle one and the last one.
 * @param {Bucket[]} buckets
 * @param {Granularity} granularity
 */
function axis(buckets, granularity) {
  const shown = [0, Math.floor(buckets.length / 2), buckets.length - 1];
  return shown.map((index) => el("span", {}, bucketName(buckets[index].start, granularity)));
}

/**
 * @param {string} kind
 * @param {string} label
 */
function key(kind, label) {
  return el("span", { class: `key ${kind}` }, label);
}

/**
 * @param {Bucket} bucket
 * @param {Granularity} granularity
 */
function describe({ start, requests, errors }, granularity) {
  return `${bucketName(start, granularity)}: ${plural(requests, "request")}, ${plural(errors, "error")}`;
}

/**
 * For people who do not see the chart.
 * @param {Bucket[]} buckets
 * @param {Granularity} granularity
 */
function summary(buckets, granularity) {
  const total = buckets.reduce((sum, bucket) => sum + bucket.requests, 0);
  const busiest = buckets.reduce((one, other) => (other.requests > one.requests ? other : one));
  return `${number(total)} requests per ${granularity}. The busiest is ${describe(busiest, granularity)}.`;
}
