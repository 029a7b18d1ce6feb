// The fields of a key: <template id="key-form"> and <template id="renew-form">.

import { get } from "./api.js";
import { el, fromTemplate } from "./dom.js";
import { date, inDays } from "./format.js";
import { Problem } from "./problems.js";
import { describe } from "./scopes.js";
import { findUser, session } from "./session.js";

/** @typedef {import("./session.js").ApiKey} ApiKey */

/**
 * @param {ApiKey} [key] to edit; without it, the fields are those of a new key
 * @returns {DocumentFragment}
 */
export function keyForm(key) {
  const fields = fromTemplate("key-form");
  for (const field of fields.querySelectorAll("[data-for]")) {
    const needs = field.getAttribute("data-for")?.split(" ") ?? [];
    if ((needs.includes("create") && key) || (needs.includes("admin") && !session().isAdmin)) {
      field.remove();
    }
  }
  fields.querySelector(".checks")?.append(...scopeChecks(key?.scopes ?? []));
  prepareExpiry(fields);
  prepareOwners(fields);
  if (key) {
    fill(fields, key);
  }
  return fields;
}

/**
 * The scopes that the user may grant, and those that the key has.
 * @param {string[]} checked
 */
function scopeChecks(checked) {
  const grantable = session().scopes;
  const scopes = [...new Set([...grantable, ...checked])];
  return scopes.map((scope) =>
    el(
      "label",
      { class: "check" },
      el("input", {
        type: "checkbox",
        name: "scopes",
        value: scope,
        checked: checked.includes(scope),
      }),
      el("span", {}, el("code", {}, scope), el("small", { class: "muted" }, describe(scope))),
    ),
  );
}

/**
 * @param {DocumentFragment} fields
 * @param {ApiKey} key
 */
function fill(fields, key) {
  const [amount, window] = key.rate_limit?.split("/") ?? ["", "minute"];
  setValue(fields, "name", key.name);
  setValue(fields, "rate_limit", amount);
  setValue(fields, "window", window);
  setValue(fields, "allowed_cidrs", key.allowed_cidrs?.join("\n") ?? "");
}

/**
 * @param {DocumentFragment} fields
 * @param {string} name
 * @param {string} value
 */
function setValue(fields, name, value) {
  /** @type {HTMLInputElement} */ (fields.querySelector(`[name=${name}]`)).value = value;
}

/** The date is only shown if it is wanted. @param {DocumentFragment} fields */
export function prepareExpiry(fields) {
  const select = /** @type {HTMLSelectElement | null} */ (
    fields.querySelector("[name=expires_at]")
  );
  const day = /** @type {HTMLInputElement | null} */ (fields.querySelector("[name=date]"));
  const hint = fields.querySelector("[data-name=expiry-hint]");
  if (!select || !day || !hint) {
    return;
  }
  day.min = inDays(1).slice(0, 10);
  const update = () => {
    day.hidden = select.value !== "date";
    day.required = !day.hidden;
    hint.replaceChildren(...expiryHint(select.value));
  };
  select.addEventListener("change", update);
  update();
}

/** @param {string} choice */
function expiryHint(choice) {
  if (choice === "never") {
    return ["If this key leaks, it works until somebody revokes it."];
  }
  return choice === "date" ? [] : ["The key expires on ", date(inDays(Number(choice))), "."];
}

/** Suggests email addresses while the user types. @param {DocumentFragment} fields */
function prepareOwners(fields) {
  const input = /** @type {HTMLInputElement | null} */ (fields.querySelector("[name=user_id]"));
  const suggestions = fields.querySelector("datalist");
  let timer = 0;
  input?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const page = await get("users", { q: input.value, limit: 10 }).catch(() => ({ items: [] }));
      const options = page.items.map((/** @type { {email: string} } */ user) =>
        el("option", { value: user.email }),
      );
      suggestions?.replaceChildren(...options);
    }, 200);
  });
}

/** The body of a PATCH. @param {FormData} data */
export function keyChanges(data) {
  const amount = data.get("rate_limit");
  const networks = String(data.get("allowed_cidrs"))
    .split(/[\s,]+/)
    .filter(Boolean);
  return {
    name: String(data.get("name")).trim(),
    scopes: data.getAll("scopes"),
    rate_limit: amount ? `${amount}/${data.get("window")}` : null,
    allowed_cidrs: networks.length > 0 ? networks : null,
  };
}

/** The body of a POST. @param {FormData} data */
export async function newKey(data) {
  const email = String(data.get("user_id") ?? "").trim();
  const owner = email ? await findUser(email) : session().user;
  if (!owner) {
    const error = { pointer: "/body/user_id", detail: "No user has this email address." };
    throw new Problem(422, "Some values are not valid.", "", [error]);
  }
  return { ...keyChanges(data), expires_at: expiryOf(data), user_id: owner.id };
}

/**
 * A number of days from now, or the end of the chosen day in the user's time zone. Null: never.
 * @param {FormData} data
 */
export function expiryOf(data) {
  const choice = String(data.get("expires_at"));
  if (choice === "never") {
    return null;
  }
  if (choice === "date") {
    return new Date(`${data.get("date")}T23:59:59`).toISOString();
  }
  // One minute less. If the browser's clock is ahead, the server would reject the maximum lifetime.
  return inDays(Number(choice) - 1 / 1440);
}
