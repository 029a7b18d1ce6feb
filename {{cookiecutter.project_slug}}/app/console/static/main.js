// Starts the console, and shows the page that the hash of the URL names.

import { signOut, start } from "./api.js";
import { auditPage } from "./audit.js";
import { byId, el } from "./dom.js";
import { keyPage } from "./key.js";
import { keysPage } from "./keys.js";
import { overviewPage } from "./overview.js";
import { problemBox } from "./problems.js";
import { can, endSession, loadSession, session } from "./session.js";
import { signInPage } from "./sign_in.js";
import { userPage } from "./user.js";
import { usersPage } from "./users.js";

/**
 * A page that is shown. `signal` aborts when the user leaves it.
 * @typedef { {main: HTMLElement, id: string, query: URLSearchParams, signal: AbortSignal,
 *   reload: () => void} } Page
 * @typedef { {path: string, title: string, scope: string, show: (page: Page) => unknown,
 *   isListed?: boolean} } Route
 */

/** @type {Route[]} */
const ROUTES = [
  {
    path: "overview",
    title: "Overview",
    scope: "api_keys:read",
    show: overviewPage,
    isListed: true,
  },
  { path: "keys", title: "Keys", scope: "api_keys:read", show: keysPage, isListed: true },
  { path: "keys/", title: "Key", scope: "", show: keyPage },
  { path: "users", title: "Users", scope: "admin", show: usersPage, isListed: true },
  { path: "users/", title: "User", scope: "admin", show: userPage },
  { path: "audit", title: "Audit log", scope: "admin", show: auditPage, isListed: true },
];

let leave = new AbortController();
let isSignedIn = false;

byId("sign-out").addEventListener("click", () => signOut(""));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash names the page
  byId("main").focus();
});
addEventListener("hashchange", () => showPage());

if (start(showSignIn)) {
  enter().catch(() => {}); // the page shows the error
} else {
  showSignIn("");
}

/** After the key was entered. */
async function enter() {
  try {
    await loadSession();
  } catch (error) {
    if (!isSignedIn && !byId("main").hasChildNodes()) {
      byId("main").append(problemBox(error, () => location.reload()));
    }
    throw error;
  }
  const { user, key } = session();
  byId("email").replaceChildren(el("bdi", { title: key.hint }, user.email));
  showNavigation();
  setSignedIn(true);
  showPage();
}

/** @param {string} reason why the key was discarded, or nothing */
function showSignIn(reason) {
  leave.abort();
  endSession();
  setSignedIn(false);
  byId("email").replaceChildren();
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.remove();
  }
  document.title = "Sign in – API console";
  signInPage(byId("main"), reason, enter);
}

/** @param {boolean} value */
function setSignedIn(value) {
  isSignedIn = value;
  byId("nav").hidden = !value;
  byId("account").hidden = !value;
}

function showNavigation() {
  const links = ROUTES.filter((route) => route.isListed && can(route.scope));
  byId("nav").replaceChildren(
    ...links.map((route) => el("a", { href: `#/${route.path}` }, route.title)),
  );
}

function showPage() {
  if (!isSignedIn) {
    return;
  }
  const [path, query] = location.hash.slice(2).split("?");
  if (!path) {
    const start = can("api_keys:read") ? "#/overview" : "#/keys/current";
    location.replace(start);
    return;
  }
  leave.abort();
  leave = new AbortController();
  const [, folder, id] = /** @type {string[]} */ (/^(\w+\/)?(.*)$/.exec(path));
  const route = ROUTES.find((one) => one.path === (folder ?? path));
  for (const link of byId("nav").querySelectorAll("a")) {
    const isCurrent = route && link.hash === `#/${route.path.replace("/", "")}`;
    link.toggleAttribute("aria-current", Boolean(isCurrent));
  }
  document.title = `${route?.title ?? "Not found"} – API console`;
  const page = {
    main: byId("main"),
    id,
    query: new URLSearchParams(query),
    signal: leave.signal,
    reload: showPage,
  };
  if (!route) {
    page.main.replaceChildren(el("h1", {}, "Not found"), el("p", {}, "There is no such page."));
  } else if (route.scope && !can(route.scope)) {
    const reason = `This page requires a key with the scope ${route.scope}.`;
    page.main.replaceChildren(el("h1", {}, route.title), el("p", {}, reason));
  } else {
    route.show(page);
  }
}
