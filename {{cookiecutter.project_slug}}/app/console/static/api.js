// Requests to the API, and the key that they carry.

import { Problem } from "./problems.js";

// The page is at /console/, the API at /v1/, both below any path that a proxy adds.
const API = new URL("../v1/", document.baseURI);
const STORED = "console.key";
const STORED_USE = "console.used_at";
const IDLE_MILLISECONDS = 15 * 60_000;

// The only place that holds the key, unless the user chose to keep it in this tab.
let key = "";
let usedAt = 0;
/** @type {(reason: string) => void} */
let whenSignedOut = () => {};

/** @typedef {Record<string, string | number | boolean | null | undefined>} Query */

/**
 * @param {(reason: string) => void} listener called when the key is discarded
 * @returns {boolean} whether a key was kept in this tab
 */
export function start(listener) {
  whenSignedOut = listener;
  usedAt = Number(sessionStorage.getItem(STORED_USE));
  key = sessionStorage.getItem(STORED) ?? "";
  if (key && isIdle()) {
    forget();
  }
  for (const event of ["pointerdown", "keydown", "wheel"]) {
    addEventListener(event, markUsed, { passive: true });
  }
  setInterval(signOutIfIdle, 5000);
  document.addEventListener("visibilitychange", signOutIfIdle);
  return key !== "";
}

/**
 * @param {string} newKey
 * @param {boolean} keep until the tab is closed
 */
export function useKey(newKey, keep) {
  forget();
  key = newKey;
  markUsed();
  if (keep) {
    sessionStorage.setItem(STORED, key);
    sessionStorage.setItem(STORED_USE, String(usedAt));
  }
}

/** After a rotation of the key itself. @param {string} newKey */
export function replaceKey(newKey) {
  useKey(newKey, sessionStorage.getItem(STORED) !== null);
}

/** @param {string} reason */
export function signOut(reason) {
  if (key) {
    forget();
    whenSignedOut(reason);
  }
}

function forget() {
  key = "";
  sessionStorage.removeItem(STORED);
  sessionStorage.removeItem(STORED_USE);
}

function markUsed() {
  signOutIfIdle();
  usedAt = Date.now();
  if (sessionStorage.getItem(STORED) !== null) {
    sessionStorage.setItem(STORED_USE, String(usedAt));
  }
}

function isIdle() {
  return Date.now() - usedAt > IDLE_MILLISECONDS;
}

function signOutIfIdle() {
  if (key && usedAt && isIdle()) {
    signOut("You were signed out after 15 minutes of inactivity.");
  }
}

/**
 * The JSON of a response. Throws a Problem.
 * @param {string} method
 * @param {string} path below /v1/
 * @param { {query?: Query, body?: unknown, signal?: AbortSignal} } [options]
 * @returns {Promise<any>}
 */
export async function request(method, path, { query = {}, body, signal } = {}) {
  const sentKey = key;
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") {
      url.searchParams.set(name, String(value));
    }
  }
  /** @type {Record<string, string>} */
  const headers = { Authorization: `Bearer ${sentKey}` };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const json = body === undefined ? undefined : JSON.stringify(body);
  const options = { method, headers, body: json, signal, cache: "no-store", credentials: "omit" };
  const response = await fetch(url, /** @type {RequestInit} */ (options)).catch((error) => {
    throw signal?.aborted ? error : Problem.ofNetwork();
  });
  if (response.ok) {
    return response.status === 204 ? null : response.json();
  }
  const problem = await Problem.of(response);
  if (problem.status === 401 && sentKey === key) {
    signOut(problem.detail);
  }
  throw problem;
}

/**
 * @param {string} path
 * @param {Query} [query]
 * @param {AbortSignal} [signal]
 */
export function get(path, query, signal) {
  return request("GET", path, { query, signal });
}
