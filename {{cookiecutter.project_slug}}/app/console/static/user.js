// #/users/ID: one user and their keys, for admins.

import { get, request } from "./api.js";
import { openConfirmation, openForm } from "./dialogs.js";
import { button, el, fromTemplate, notify, userText } from "./dom.js";
import { ago, date, plural } from "./format.js";
import { definitions } from "./key.js";
import { done, goTo } from "./key_actions.js";
import { keyColumns } from "./key_columns.js";
import { emptyState, list } from "./list.js";
import { problemBox } from "./problems.js";
import { session } from "./session.js";
import { nameOf, statusOf } from "./users.js";

/**
 * @typedef {import("./session.js").User} User
 * @typedef {import("./main.js").Page} Page
 */

/** @param {Page} page */
export async function userPage(page) {
  const title = el("h1", {}, "User");
  page.main.replaceChildren(breadcrumb(), el("div", { class: "loading" }, title));
  try {
    show(page, await get(`users/${encodeURIComponent(page.id)}`, {}, page.signal));
  } catch (error) {
    if (!page.signal.aborted) {
      page.main.replaceChildren(breadcrumb(), title, problemBox(error, page.reload));
    }
  }
}

function breadcrumb() {
  return el("p", { class: "breadcrumb" }, el("a", { href: "#/users" }, "← Users"));
}

/**
 * @param {Page} page
 * @param {User} user
 */
function show(page, user) {
  document.title = `${user.email} – API console`;
  const keys = list(page, {
    label: "Keys of this user",
    path: "api-keys",
    query: { user_id: user.id },
    columns: keyColumns(false),
    empty: () => emptyState("No keys", "Create one on the page Keys, with this user as its owner."),
  });
  page.main.replaceChildren(
    breadcrumb(),
    el(
      "div",
      { class: "head" },
      el("h1", {}, userText(user.email), " ", statusOf(user)),
      el("div", { class: "actions" }, ...actions(page, user)),
    ),
    el("section", { class: "panel", "aria-label": "Fields" }, fields(user)),
    el("section", { "aria-labelledby": "user-keys" }, el("h2", { id: "user-keys" }, "Keys"), keys),
  );
}

/** @param {User} user */
function fields(user) {
  return definitions([
    ["Name", userText(nameOf(user) || "–")],
    ["Role", user.is_admin ? "Admin" : "User"],
    ["Id", el("code", {}, user.id)],
    ["Created", date(user.created_at)],
    ["Changed", ago(user.updated_at)],
  ]);
}

/**
 * @param {Page} page
 * @param {User} user
 */
function actions(page, user) {
  const active = user.is_active
    ? ["Disable", "All keys of this user are rejected until you enable the user again."]
    : ["Enable", "Requests with keys of this user work again."];
  const admin = user.is_admin
    ? ["Remove admin", "This user can then only see and change their own keys."]
    : ["Make admin", "Admins can see and change all users and all keys."];
  return [
    button("Edit", () => editUser(page, user)),
    button(admin[0], () => confirmChange(page, user, admin, { is_admin: !user.is_admin })),
    button(active[0], () => confirmChange(page, user, active, { is_active: !user.is_active })),
    button("Revoke all keys", () => revokeAll(page, user), "danger"),
    button("Delete", () => deleteUser(user), "danger"),
  ];
}

/** @param {User} user */
function ownWarning(user) {
  return user.id === session().user.id ? " This is your own user." : "";
}

/**
 * @param {Page} page
 * @param {User} user
 */
function editUser(page, user) {
  const content = fromTemplate("user-form");
  for (const field of content.querySelectorAll("[data-for=create]")) {
    field.remove();
  }
  for (const name of /** @type {const} */ (["first_name", "last_name"])) {
    /** @type {HTMLInputElement} */ (content.querySelector(`[name=${name}]`)).value = user[name];
  }
  const submit = async (/** @type {FormData} */ data) => {
    await request("PATCH", `users/${user.id}`, { body: Object.fromEntries(data) });
    return () => done(page, "The user was changed.");
  };
  openForm({ title: "Edit user", content, action: "Save", submit });
}

/**
 * @param {Page} page
 * @param {User} user
 * @param {string[]} texts the action, and its consequence
 * @param {Partial<User>} body
 */
function confirmChange(page, user, [action, text], body) {
  const isDangerous = body.is_active === false || body.is_admin === false;
  const submit = async () => {
    await request("PATCH", `users/${user.id}`, { body });
    return () => done(page, "The user was changed.");
  };
  openConfirmation({ title: action, text: text + ownWarning(user), action, isDangerous, submit });
}

/**
 * @param {Page} page
 * @param {User} user
 */
function revokeAll(page, user) {
  openConfirmation({
    title: "Revoke all keys",
    text: `All keys of this user are rejected at once, and permanently.${ownWarning(user)}`,
    action: "Revoke all keys",
    word: user.email,
    wordLabel: "the email address",
    submit: async () => {
      const { revoked } = await request("DELETE", `users/${user.id}/api-keys`);
      return () => done(page, `${plural(revoked, "key")} revoked.`);
    },
  });
}

/** @param {User} user */
async function deleteUser(user) {
  const keys = await get("api-keys", { user_id: user.id, limit: 100 }).catch(() => null);
  const count = keys ? plural(keys.items.length, "key") : "all keys";
  const more = keys?.next_cursor ? "more than " : "";
  openConfirmation({
    title: "Delete user",
    text: `This deletes the user, ${more}${count}, and the usage of these keys, permanently. The audit log stays.${ownWarning(user)}`,
    action: "Delete user",
    word: user.email,
    wordLabel: "the email address",
    submit: async () => {
      await request("DELETE", `users/${user.id}`);
      return () => {
        notify("The user was deleted.");
        goTo("#/users");
      };
    },
  });
}
