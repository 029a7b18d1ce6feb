// #/users: the list of users, for admins.

import { request } from "./api.js";
import { openForm } from "./dialogs.js";
import { button, el, fromTemplate, userText } from "./dom.js";
import { date } from "./format.js";
import { goTo } from "./key_actions.js";
import { statusBadge } from "./key_columns.js";
import { emptyState, list, searchForm } from "./list.js";

/**
 * @typedef {import("./session.js").User} User
 * @typedef {import("./main.js").Page} Page
 */

/** @type {import("./list.js").Column<User>[]} */
const COLUMNS = [
  { label: "Email", cell: (user) => el("a", { href: `#/users/${user.id}` }, userText(user.email)) },
  { label: "Name", cell: (user) => userText(nameOf(user)), kind: "secondary long" },
  { label: "Role", cell: (user) => (user.is_admin ? "Admin" : "User"), kind: "secondary short" },
  { label: "Status", cell: (user) => statusOf(user), kind: "short" },
  { label: "Created", cell: (user) => date(user.created_at), kind: "secondary short" },
];

/** @param {Page} page */
export function usersPage(page) {
  const q = page.query.get("q") ?? "";
  const create = () => button("Create user", createUser, "primary");
  const empty = () =>
    q
      ? emptyState("No match", `No user has an email or a name that contains “${q}”.`)
      : emptyState(
          "No users",
          "Create a user for each person or program that owns keys.",
          create(),
        );
  page.main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Users"), create()),
    searchForm(
      "Search by email or name",
      q,
      (text) => `#/users?${new URLSearchParams({ q: text })}`,
    ),
    list(page, { label: "Users", path: "users", query: { q }, columns: COLUMNS, empty }),
  );
}

/** @param {User} user */
export function nameOf(user) {
  return `${user.first_name} ${user.last_name}`.trim();
}

/** @param {User} user */
export function statusOf(user) {
  return statusBadge(user.is_active ? "active" : "disabled");
}

function createUser() {
  openForm({
    title: "Create user",
    content: fromTemplate("user-form"),
    action: "Create user",
    submit: async (data) => {
      const body = {
        email: String(data.get("email")).trim(),
        first_name: String(data.get("first_name")).trim(),
        last_name: String(data.get("last_name")).trim(),
        is_admin: data.has("is_admin"),
      };
      const user = await request("POST", "users", { body });
      return () => goTo(`#/users/${user.id}`);
    },
  });
}
