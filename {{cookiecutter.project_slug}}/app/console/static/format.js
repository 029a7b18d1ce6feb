// Numbers and moments in the browser's language.

import { el } from "./dom.js";

const NUMBER = new Intl.NumberFormat();
const SHORT_NUMBER = new Intl.NumberFormat(undefined, { notation: "compact" });
const MILLIONS = new Intl.NumberFormat(undefined, {
  notation: "compact",
  maximumFractionDigits: 1,
});
const PERCENT = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "always" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
const HOUR = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "numeric",
  minute: "2-digit",
});

const MINUTE = 60;
const HOUR_SECONDS = 3600;
const DAY_SECONDS = 86_400;
/** A unit, its seconds, and from how many seconds on it is used. The largest is first. */
const UNITS = /** @type {[Intl.RelativeTimeFormatUnit, number, number][]} */ ([
  ["year", 365 * DAY_SECONDS, 730 * DAY_SECONDS],
  ["month", 30 * DAY_SECONDS, 90 * DAY_SECONDS],
  ["day", DAY_SECONDS, 1.5 * DAY_SECONDS],
  ["hour", HOUR_SECONDS, 1.5 * HOUR_SECONDS],
  ["minute", MINUTE, MINUTE],
]);

export const number = NUMBER.format;

/** At most eight characters. @param {number} count */
export function total(count) {
  return count < 10_000_000 ? NUMBER.format(count) : MILLIONS.format(count);
}

export const shortNumber = SHORT_NUMBER.format;
export const percent = PERCENT.format;

/**
 * The start of a bucket. Days are those of UTC.
 * @param {string} start
 * @param {"hour" | "day"} granularity
 */
export function bucketName(start, granularity) {
  return (granularity === "day" ? DAY : HOUR).format(new Date(start));
}

/**
 * "3 days ago", with the exact moment on hover.
 * @param {string | null} moment
 * @param {string} [otherwise] the text without a moment
 */
export function ago(moment, otherwise = "Never") {
  return moment ? time(moment, relative(moment)) : el("span", { class: "muted" }, otherwise);
}

/**
 * A date, with the exact moment on hover.
 * @param {string} moment
 */
export function date(moment) {
  return time(moment, DATE.format(new Date(moment)));
}

/**
 * @param {string} moment
 * @param {string} text
 */
function time(moment, text) {
  const utc = new Date(moment).toISOString().replace("T", " ").slice(0, 19);
  const title = `${EXACT.format(new Date(moment))} (${utc} UTC)`;
  return el("time", { datetime: moment, title }, text);
}

/** @param {string} moment */
function relative(moment) {
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  for (const [unit, size, from] of UNITS) {
    if (Math.abs(seconds) >= from) {
      return RELATIVE.format(Math.round(seconds / size), unit);
    }
  }
  return seconds < 0 ? "just now" : "in less than a minute";
}

/**
 * When a key expires. It stands out if that is soon.
 * @param { {expires_at: string | null, status: string} } key
 */
export function expiry(key) {
  if (key.status === "revoked") {
    return el("span", { class: "muted" }, "–");
  }
  const element = ago(key.expires_at);
  const isSoon = key.expires_at !== null && key.expires_at < inDays(7);
  element.classList.toggle("soon", isSoon && key.status === "active");
  return element;
}

/**
 * @param {number} days from now; negative: ago
 * @returns {string}
 */
export function inDays(days) {
  return new Date(Date.now() + days * 86_400_000).toISOString();
}

/**
 * "1 key", "2 keys"
 * @param {number} count
 * @param {string} noun
 */
export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}
