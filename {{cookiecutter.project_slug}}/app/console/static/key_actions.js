// What can be done with a key.

import { replaceKey, request } from "./api.js";
import { openConfirmation, openForm } from "./dialogs.js";
import { el, fromTemplate, notify } from "./dom.js";
import { ago } from "./format.js";
import { expiryOf, keyChanges, keyForm, newKey, prepareExpiry } from "./key_form.js";
import { showNewKey } from "./new_key.js";
import { isOwnKey, loadSession } from "./session.js";

/**
 * @typedef {import("./session.js").ApiKey} ApiKey
 * @typedef {import("./main.js").Page} Page
 */

/** @param {Page} page */
export function createKey(page) {
  openForm({
    title: "Create key",
    content: keyForm(),
    action: "Create key",
    submit: async (data) => {
      const created = await request("POST", "api-keys", { body: await newKey(data) });
      return () => showNewKey(created.api_key, null, page.reload);
    },
  });
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
export function editKey(page, key) {
  openForm({
    title: "Edit key",
    content: keyForm(key),
    action: "Save",
    submit: async (data) => {
      const changes = onlyChanged(key, keyChanges(data));
      await request("PATCH", `api-keys/${key.id}`, { body: changes });
      return () => done(page, "The key was changed.");
    },
  });
}

/**
 * Widening a key requires more rights, so unchanged values are not sent.
 * @param {ApiKey} key
 * @param {Record<string, unknown>} values
 */
function onlyChanged(key, values) {
  const old = /** @type {Record<string, unknown>} */ (key);
  const text = (/** @type {unknown} */ value) =>
    JSON.stringify(Array.isArray(value) ? [...value].sort() : value);
  const changed = Object.entries(values).filter(([name, value]) => text(value) !== text(old[name]));
  return Object.fromEntries(changed);
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
export function renewKey(page, key) {
  const content = fromTemplate("renew-form");
  prepareExpiry(content);
  openForm({
    title: "Renew key",
    content,
    action: "Renew",
    submit: async (data) => {
      await request("POST", `api-keys/${key.id}/renew`, { body: { expires_at: expiryOf(data) } });
      return () => done(page, "The key was renewed.");
    },
  });
}

/** @param {ApiKey} key */
export function rotateKey(key) {
  openForm({
    title: "Rotate key",
    content: fromTemplate("rotate-form"),
    action: "Rotate",
    submit: async (data) => {
      const body = { overlap_seconds: Number(data.get("overlap_seconds")) };
      const rotated = await request("POST", `api-keys/${key.id}/rotate`, { body });
      const isOwn = isOwnKey(key);
      if (isOwn) {
        replaceKey(rotated.api_key);
        await loadSession().catch(() => null); // the new key must be shown in any case
      }
      const note = el("p", {}, "The old key expires ", ago(rotated.previous.expires_at), ".");
      if (isOwn) {
        note.append(" You are now signed in with the new key.");
      }
      return () => showNewKey(rotated.api_key, note, () => goTo(`#/keys/${rotated.id}`));
    },
  });
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 * @param {boolean} enabled
 */
export function setEnabled(page, key, enabled) {
  const send = async () => {
    await request("PATCH", `api-keys/${key.id}`, { body: { enabled } });
    return () => done(page, enabled ? "The key was enabled." : "The key was disabled.");
  };
  const action = enabled ? "Enable" : "Disable";
  const text = enabled
    ? "Requests with this key work again."
    : `Requests with this key are rejected until you enable it again.${ownKeyWarning(key)}`;
  openConfirmation({ title: `${action} key`, text, action, isDangerous: !enabled, submit: send });
}

/**
 * @param {Page} page
 * @param {ApiKey} key
 */
export function revokeKey(page, key) {
  openConfirmation({
    title: "Revoke key",
    text: `Requests with this key are rejected at once, and permanently.${ownKeyWarning(key)}`,
    action: "Revoke",
    word: key.name,
    wordLabel: "the name of the key",
    submit: async () => {
      await request("DELETE", `api-keys/${key.id}`);
      return () => done(page, "The key was revoked.");
    },
  });
}

/** @param {ApiKey} key */
function ownKeyWarning(key) {
  return isOwnKey(key) ? " You are signed in with this key, so you will be signed out." : "";
}

/**
 * @param {Page} page
 * @param {string} text
 */
export function done(page, text) {
  notify(text);
  page.reload();
}

/** @param {string} hash */
export function goTo(hash) {
  location.hash = hash;
}
