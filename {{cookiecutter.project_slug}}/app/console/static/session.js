// Who is signed in, and the email addresses of the owners that were shown.

import { get } from "./api.js";

/**
 * @typedef { {id: string, email: string, first_name: string, last_name: string,
 *   is_active: boolean, is_admin: boolean, created_at: string, updated_at: string} } User
 * @typedef { {id: string, user_id: string, name: string, hint: string, scopes: string[],
 *   status: "active" | "disabled" | "expired" | "revoked", rate_limit: string | null,
 *   allowed_cidrs: string[] | null, created_at: string, updated_at: string,
 *   expires_at: string | null, last_used_at?: string | null, revoked_at: string | null} } ApiKey
 * @typedef { {user: User, key: ApiKey, scopes: string[], isAdmin: boolean,
 *   emails: Map<string, Promise<string>>} } Session
 */

/** @type {Session | null} */
let current = null;

/** @returns {Session} */
export function session() {
  if (!current) {
    throw new Error("nobody is signed in");
  }
  return current;
}

/** Ask who the key belongs to. Throws a Problem. */
export async function loadSession() {
  const [user, key] = await Promise.all([get("users/me"), get("api-keys/current")]);
  const isEffective = (/** @type {string} */ scope) => scope !== "admin" || user.is_admin;
  const scopes = key.scopes.filter(isEffective);
  const isAdmin = scopes.includes("admin");
  current = { user, key, scopes, isAdmin, emails: new Map() };
  current.emails.set(user.id, Promise.resolve(user.email));
}

export function endSession() {
  current = null;
}

/** @param {string} scope */
export function can(scope) {
  return session().scopes.includes(scope);
}

/** Projects can delete the feature that counts requests. */
export function hasUsage() {
  return "last_used_at" in session().key;
}

/** Whether a key is the one that the user signed in with. @param {ApiKey} key */
export function isOwnKey(key) {
  return key.id === session().key.id;
}

/**
 * The email address of a user, for admins. Without it, the id.
 * @param {string} id
 * @returns {Promise<string>}
 */
export function emailOf(id) {
  const { emails } = session();
  const known = emails.get(id);
  if (known) {
    return known;
  }
  const email = get(`users/${id}`).then(
    (user) => user.email,
    () => id,
  );
  emails.set(id, email);
  return email;
}

/** One request for the owners of most installations. */
export async function loadEmails() {
  const { emails } = session();
  if (emails.size > 1) {
    return;
  }
  const page = await get("users", { limit: 100 }).catch(() => ({ items: [] }));
  for (const user of page.items) {
    emails.set(user.id, Promise.resolve(user.email));
  }
}

/**
 * @param {string} email
 * @returns {Promise<User | undefined>}
 */
export async function findUser(email) {
  let cursor;
  do {
    const page = await get("users", { q: email, limit: 100, cursor });
    const user = page.items.find((/** @type {User} */ one) => one.email === email.toLowerCase());
    if (user) {
      return user;
    }
    cursor = page.next_cursor;
  } while (cursor);
}
