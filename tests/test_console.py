"""The console in a real browser, and /docs, on a server without internet access."""

import http.client
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # it has no types
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import CHROMIUM, chromium, open_page, sign_in, watched_page
from tests.demo import free_port, running
from tests.seed import Api, seed
from tests.servers import Instance, SqliteStore, until

KEY = re.compile(r"[a-z]+_live_[0-9a-z]{16}_[0-9A-Za-z]{49}")
FIRST_PAINT = 100  # milliseconds, if no process waits for a processor
MAX_SHIFT = 0.02  # the layout shift score of the Layout Instability API

# Pages of admins. KEY and USER stand for ids.
PAGES = ["keys", "keys?tab=revoked", "keys?q=nothing", "keys/KEY", "users", "users/USER", "audit", "overview"]
NAMES = [
    "<img src=x onerror=alert(1)>",
    "'\"><script>alert(1)</script>",
    "مفتاح \N{RIGHT-TO-LEFT OVERRIDE}txt.exe",
    "w" * 100,
    "\N{FAMILY} \N{ROCKET}\N{VARIATION SELECTOR-16}",
    "{{constructor.constructor('alert(1)')()}}",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(project: Path, sqlite_seed: SqliteStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """With the data of the demo. Its admin has the key of the store."""
    store = sqlite_seed.copy(tmp_path_factory.mktemp("console") / "app.db")
    instance = start(project, store)
    with instance.running():
        seed(instance.port, store.key, store.path)
        yield instance


def start(project: Path, store: SqliteStore, **settings: int) -> Instance:
    return Instance(project, store, CONSOLE_ENABLED="true", DOCS_ENABLED="true", USAGE_FLUSH_SECONDS=0.2, **settings)


def origin(server: Instance) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def api(server: Instance) -> Api:
    return Api(server.port, server.store.key)


@pytest.fixture
def page(browser: Browser, server: Instance) -> Iterator[Page]:
    with watched_page(browser, origin(server)) as page:
        yield page


@pytest.fixture
def admin(page: Page, server: Instance) -> Page:
    sign_in(page, server.store.key)
    return page


def path_of(page: str, api: Api) -> str:
    """Ids in the place of KEY and USER."""
    keys = api("GET", "api-keys?q=nightly")["items"]
    assert isinstance(keys, list)
    return page.replace("KEY", keys[0]["id"]).replace("USER", keys[0]["user_id"])


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def submit(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name).click()


def new_key(page: Page) -> str:
    """The key that the dialog shows. It is closed, which asks first."""
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You will not see it again")
    [key, *_] = KEY.findall(dialog.inner_text())
    expect(dialog).to_contain_text(f'/v1/users/me --header "Authorization: Bearer {key}"')
    dialog.get_by_role("button", name="Copy").first.click()
    page.keyboard.press("Escape")
    expect(dialog).to_contain_text("Have you saved the key?")
    dialog.get_by_role("button", name="Yes, close").click()
    expect(dialog).to_have_count(0)
    found: str = key
    return found


def status(server: Instance, key: str) -> int:
    return server.get("/v1/users/me", key).status


def test_the_life_of_a_key_by_clicking(admin: Page, server: Instance) -> None:
    badge = admin.locator("h1 .badge")

    open_page(admin, "keys")
    click(admin, "Create key")
    admin.get_by_label("Name", exact=True).fill("clicked")
    admin.get_by_label("users:read").check()
    admin.get_by_label("Expiry", exact=True).select_option("7")
    submit(admin, "Create key")
    key = new_key(admin)
    assert status(server, key) == 200

    admin.get_by_role("link", name="clicked").click()
    expect(badge).to_have_text("Active")
    click(admin, "Edit")
    admin.get_by_label("Name", exact=True).fill("clicked twice")
    admin.get_by_label("users:write").check()
    admin.get_by_label("Rate limit", exact=True).fill("50")
    admin.get_by_label("Networks", exact=True).fill("127.0.0.0/8\n::1/128")
    submit(admin, "Save")
    expect(admin.get_by_role("heading", level=1)).to_contain_text("clicked twice")
    expect(admin.get_by_role("main")).to_contain_text("127.0.0.0/8, ::1/128")
    expect(admin.get_by_role("main")).to_contain_text("50 requests per minute")

    click(admin, "Disable")
    submit(admin, "Disable")
    expect(badge).to_have_text("Disabled")
    assert status(server, key) == 401
    click(admin, "Enable")
    submit(admin, "Enable")
    expect(badge).to_have_text("Active")

    click(admin, "Renew")
    admin.get_by_label("New expiry").select_option("90")
    submit(admin, "Renew")
    expect(admin.get_by_role("main")).to_contain_text("in 90 days")

    click(admin, "Rotate")
    submit(admin, "Rotate")
    expect(admin.get_by_role("dialog")).to_contain_text("The old key expires in 60 minutes")
    successor = new_key(admin)
    assert {status(server, key), status(server, successor)} == {200}
    expect(admin.get_by_role("main")).to_contain_text(successor.split("_")[2])

    click(admin, "Revoke")
    confirm = admin.get_by_role("dialog").get_by_role("button", name="Revoke")
    expect(confirm).to_be_disabled()
    admin.get_by_label("To confirm").fill("clicked twice")
    confirm.click()
    expect(badge).to_have_text("Revoked")
    assert status(server, successor) == 401
    expect(admin.get_by_role("main")).to_contain_text("Key revoked by you")


def focus(page: Page, name: str) -> None:
    """Press Tab until the element with this text or label has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => { const one = document.activeElement;"
            " return (one.labels?.[0] ?? one).innerText?.trim() || one.getAttribute('aria-label') }"
        )
        if found and str(found).startswith(name):
            return
    raise AssertionError(f"Tab never reaches {name}")


def press(page: Page, name: str) -> None:
    focus(page, name)
    page.keyboard.press("Enter")


def test_the_life_of_a_key_by_keyboard(page: Page, server: Instance) -> None:
    page.goto("/")
    page.get_by_label("API key").wait_for()
    page.keyboard.insert_text(server.store.key)  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview").wait_for()
    press(page, "Keys")
    page.get_by_role("button", name="Create key").wait_for()
    press(page, "Create key")
    page.keyboard.type("typed")
    focus(page, "users:read")
    page.keyboard.press("Space")
    press(page, "Create key")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You will not see it again")
    [key, *_] = KEY.findall(dialog.inner_text())
    press(page, "Done")
    press(page, "Yes, close")
    expect(dialog).to_have_count(0)
    assert status(server, key) == 200

    press(page, "typed")
    page.get_by_role("button", name="Rotate").wait_for()
    press(page, "Rotate")
    press(page, "Cancel")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement.textContent") == "Rotate", "the focus has not returned"
    press(page, "Revoke")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    expect(page.locator("h1 .badge")).to_have_text("Revoked")
    assert status(server, key) == 401
    focus(page, "Skip to content")
    press(page, "Sign out")
    expect(page.get_by_label("API key")).to_be_focused()


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_no_page_violates_accessibility_rules(browser: Browser, server: Instance, api: Api, color_scheme: str) -> None:
    with watched_page(browser, origin(server), color_scheme=color_scheme, reduced_motion="reduce") as page:
        page.goto("/")
        page.get_by_text("Where do I get a key?").click()
        assert violations(page) == []
        sign_in(page, server.store.key)
        for path in PAGES:
            open_page(page, path_of(path, api))
            assert violations(page) == [], path
        open_page(page, "keys")
        page.get_by_role("button", name="Create key").click()
        assert violations(page) == []
        page.get_by_label("Name", exact=True).fill("accessible")
        page.get_by_label("Networks", exact=True).fill("nowhere")
        page.get_by_role("dialog").get_by_role("button", name="Create key").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert violations(page) == []
        page.get_by_label("Networks", exact=True).fill("")
        page.get_by_role("dialog").get_by_role("button", name="Create key").click()
        expect(page.get_by_role("dialog")).to_contain_text("You will not see it again")
        assert violations(page) == []


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_no_page_is_wider_than_the_window_or_moves_while_it_loads(
    browser: Browser, server: Instance, api: Api, width: int
) -> None:
    watch = """() => {
        window.shift = 0;
        const add = one => { window.shift += one.hadRecentInput ? 0 : one.value };
        new PerformanceObserver(list => list.getEntries().forEach(add)).observe({type: 'layout-shift'});
    }"""
    api("POST", "api-keys", {"name": "w" * 100, "scopes": []})
    with watched_page(browser, origin(server), viewport={"width": width, "height": 900}) as page:
        sign_in(page, server.store.key)
        open_page(page, "audit")
        page.evaluate(watch)
        for path in PAGES:
            open_page(page, path_of(path, api))
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.evaluate("window.shift") <= MAX_SHIFT, path


def test_names_are_shown_as_text(admin: Page, api: Api) -> None:
    for name in NAMES:
        created = api("POST", "api-keys", {"name": name, "scopes": []})
        api("POST", "users", {"email": f"{created['id']}@example.com", "first_name": name})
        open_page(admin, "overview")
        open_page(admin, "keys")
        expect(admin.locator("td bdi", has_text=name).first).to_have_text(name)
        open_page(admin, f"keys/{created['id']}")
        expect(admin.locator("h1 bdi")).to_have_text(name)
        open_page(admin, "users")
        expect(admin.locator("td bdi", has_text=name).first).to_have_text(name)
        open_page(admin, "audit")
    assert admin.locator("main script, main img").count() == 0


def test_after_signing_out_the_key_is_nowhere(page: Page, server: Instance) -> None:
    key = server.store.key
    sign_in(page, key, keep=True)
    assert page.evaluate("Object.values(sessionStorage)").count(key) == 1
    page.reload()
    for path in ("keys", "overview", "users"):
        open_page(page, path)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_have_value("")
    secret = key.rpartition("_")[2]
    kept = page.evaluate(
        "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href, history.state])"
    )
    history = page.context.new_cdp_session(page).send("Page.getNavigationHistory")
    values = page.evaluate("[...document.querySelectorAll('input')].map(one => one.value).join()")
    for text in (kept, str(history), page.content(), values, server.log.read_text()):
        assert secret not in text
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


def test_without_keep_a_reload_signs_out(admin: Page) -> None:
    assert admin.evaluate("sessionStorage.length + localStorage.length") == 0
    admin.reload()
    expect(admin.get_by_label("API key")).to_be_visible()


@pytest.mark.parametrize("keep", [False, True])
def test_15_minutes_of_inactivity_sign_out(page: Page, server: Instance, keep: bool) -> None:
    page.clock.install()
    sign_in(page, server.store.key, keep=keep)
    page.clock.fast_forward("14:00")
    page.keyboard.press("Shift")
    page.clock.fast_forward("14:00")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.clock.fast_forward("01:10")
    expect(page.get_by_role("alert")).to_contain_text("15 minutes of inactivity")
    assert page.evaluate("sessionStorage.length") == 0


def test_a_revoked_key_signs_out_and_says_why(page: Page, api: Api) -> None:
    created = api("POST", "api-keys", {"name": "short-lived", "scopes": ["api_keys:read"]})
    sign_in(page, str(created["api_key"]))
    open_page(page, "overview")  # the click must be the first request with the revoked key
    api("DELETE", f"api-keys/{created['id']}")
    page.get_by_role("link", name="Keys", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("This API key has been revoked.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill("not a key \N{ROCKET}")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This is not an API key.")
    page.get_by_label("API key").fill("acme_live_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This API key is not valid.")


def test_problems_are_shown(page: Page, server: Instance, api: Api) -> None:
    fields = {"name": "limited", "scopes": ["api_keys:read", "api_keys:write"], "rate_limit": "12/hour"}
    sign_in(page, str(api("POST", "api-keys", fields)["api_key"]))
    open_page(page, "keys")
    page.get_by_role("button", name="Create key").click()
    page.get_by_label("Name", exact=True).fill("invalid")
    page.get_by_label("Networks", exact=True).fill("10.0.0.1/8")
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    networks = page.locator(".field", has_text="Networks")
    expect(networks).to_contain_text("Input should be a network")
    expect(page.get_by_label("Networks", exact=True)).to_be_focused()
    request_id = page.locator(".request-id code").inner_text()
    assert request_id in server.log.read_text(), "422"
    page.keyboard.press("Escape")

    for _ in range(12):
        page.evaluate("location.hash = '#/keys?tab=' + Math.random()")
    expect(page.get_by_role("alert")).to_contain_text("Try again in")
    page.get_by_role("button", name="Sign out").click()

    sign_in(page, server.store.key)
    page.context.set_offline(True)
    page.get_by_role("link", name="Keys", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not respond")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("link", name="nightly report")).to_be_visible()


def test_a_database_that_is_down_is_shown_until_it_is_up(admin: Page, server: Instance) -> None:
    server.store.sql("ALTER TABLE user_api_keys RENAME TO gone")
    try:
        admin.get_by_role("link", name="Keys", exact=True).click()
        alert = admin.get_by_role("alert").first
        expect(alert).to_contain_text("The service is temporarily unavailable.")
        assert alert.locator(".request-id code").inner_text() in server.log.read_text()
    finally:
        server.store.sql("ALTER TABLE gone RENAME TO user_api_keys")
    admin.get_by_role("button", name="Try again").first.click()
    expect(admin.get_by_role("link", name="nightly report")).to_be_visible()


def test_a_user_sees_only_their_own_keys_and_no_page_of_admins(page: Page, api: Api) -> None:
    user = api("POST", "users", {"email": "plain@example.com"})
    scopes = ["api_keys:read", "api_keys:write"]
    own = api("POST", "api-keys", {"name": "my own", "scopes": scopes, "user_id": user["id"]})
    sign_in(page, str(own["api_key"]))
    assert page.get_by_role("navigation", name="Pages").inner_text().split("\n") == ["Overview", "Keys"]
    open_page(page, "keys")
    assert page.locator("td.owner").count() == 0
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("button", name="Create key").click()
    assert page.locator("[name=user_id]").count() == 0
    assert page.locator("[name=scopes]").evaluate_all("all => all.map(one => one.value)") == scopes
    page.keyboard.press("Escape")
    for path in ("users", f"users/{user['id']}", "audit"):
        open_page(page, path)
        expect(page.get_by_role("main")).to_contain_text("requires a key with the scope admin")
    open_page(page, path_of("keys/KEY", api))
    expect(page.get_by_role("alert")).to_contain_text("Not found.")
    open_page(page, "overview")
    assert "web frontend" not in page.content()


def test_users_are_managed_by_clicking(admin: Page, api: Api) -> None:
    open_page(admin, "users")
    admin.get_by_role("button", name="Create user").click()
    admin.get_by_label("Email", exact=True).fill("ada@example.com")
    admin.get_by_label("First name").fill("Ada")
    submit(admin, "Create user")
    expect(admin.get_by_role("heading", level=1)).to_contain_text("ada@example.com")
    user_id = admin.url.rpartition("/")[2]
    for number in range(2):
        api("POST", "api-keys", {"name": f"key {number}", "scopes": [], "user_id": user_id})
    for name, expected in (("Make admin", "Admin"), ("Remove admin", "User")):
        admin.get_by_role("button", name=name).click()
        submit(admin, name)
        expect(admin.locator("dd").nth(1)).to_have_text(expected)
    for name, expected in (("Disable", "Disabled"), ("Enable", "Active")):
        admin.get_by_role("button", name=name).click()
        submit(admin, name)
        expect(admin.locator("h1 .badge")).to_have_text(expected)
    admin.get_by_role("button", name="Revoke all keys").click()
    admin.get_by_label("To confirm").fill("ada@example.com")
    submit(admin, "Revoke all keys")
    expect(admin.locator("td .badge.revoked")).to_have_count(2)
    admin.get_by_role("button", name="Delete").click()
    expect(admin.get_by_role("dialog")).to_contain_text("2 keys")
    admin.get_by_label("To confirm").fill("ada@example.com")
    submit(admin, "Delete user")
    expect(admin.get_by_role("heading", level=1)).to_have_text("Users")
    open_page(admin, "audit?action=user.deleted")
    expect(admin.locator("tbody tr")).to_have_count(1)


def test_rotating_and_revoking_the_key_of_the_session(page: Page, api: Api) -> None:
    own = api("POST", "api-keys", {"name": "session", "scopes": ["api_keys:read"]})
    sign_in(page, str(own["api_key"]))
    open_page(page, f"keys/{own['id']}")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_label("The old key").select_option("0")
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(page.get_by_role("dialog")).to_contain_text("You are now signed in with the new key.")
    new_key(page)
    expect(page.locator("h1 .badge")).to_have_text("Active")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_contain_text("you will be signed out")
    page.get_by_label("To confirm").fill("session")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("alert")).to_have_text("This API key has been revoked.")


@pytest.fixture(scope="module")
def large(project: Path, sqlite_seed: SqliteStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """10,000 keys of 1,000 users, and 100 users without keys."""
    store = sqlite_seed.copy(tmp_path_factory.mktemp("large") / "app.db")
    numbers = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {})"
    store.sql(
        f"INSERT INTO users {numbers.format(1100)} SELECT printf('%032x', n), printf('user%d@example.com', n), '', '',"  # noqa: S608 - constants
        " true, false, '2025-01-01 00:00:00.000000', '2025-01-01 00:00:00.000000' FROM number"
    )
    oldest = "email = '7@example.com', created_at = '2024-01-01 00:00:00.000000'"
    store.sql(f"UPDATE users SET {oldest} WHERE email = 'user7@example.com'")  # noqa: S608
    columns = [name for line in store.sql("PRAGMA table_info(user_api_keys)") for name in [line.split("|")[1]]]
    values = {
        "id": "printf('%016d', n)",
        "original_id": "printf('%016d', n)",
        "user_id": "printf('%032x', 1 + n % 1000)",
        "name": "printf('key %d', n)",
    }
    copied = ", ".join(values.get(column, column) for column in columns)
    store.sql(f"INSERT INTO user_api_keys {numbers.format(10_000)} SELECT {copied} FROM user_api_keys, number")  # noqa: S608
    instance = start(project, store, API_KEY_MAX_EXPIRE_DAYS=90)
    with instance.running():
        yield instance


def test_thousands_of_keys_and_users_stay_usable(browser: Browser, large: Instance) -> None:
    with watched_page(browser, origin(large)) as page:
        sign_in(page, large.store.key)
        open_page(page, "keys")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(50)
        for pages in range(2, 5):
            page.get_by_role("button", name="Load more").click()
            expect(rows).to_have_count(50 * pages)
        assert page.evaluate("document.activeElement.tagName") == "A", "the focus is on the first new row"
        page.get_by_label("Search by name").fill("key 9999")
        page.keyboard.press("Enter")
        expect(rows).to_have_count(1)
        expect(page.get_by_role("link", name="user1000@example.com")).to_be_visible()
        open_page(page, "users?q=user77")
        expect(rows).to_have_count(11)
        page.get_by_role("link", name="user777@example.com").click()
        expect(rows).to_have_count(10)
        page.go_back()
        expect(rows).to_have_count(11)
        open_page(page, "audit?by=7@example.com")  # more than 100 newer users have similar addresses
        expect(page.get_by_text("No change matches these filters.")).to_be_visible()


def test_the_maximum_lifetime_can_be_chosen_if_the_clock_of_the_browser_is_ahead(
    browser: Browser, large: Instance
) -> None:
    with watched_page(browser, origin(large)) as page:
        page.clock.set_fixed_time(datetime.now(UTC) + timedelta(seconds=30))
        sign_in(page, large.store.key)
        open_page(page, "keys")
        click(page, "Create key")
        page.get_by_label("Name", exact=True).fill("longest")
        page.get_by_label("Expiry", exact=True).select_option("90")
        submit(page, "Create key")
        new_key(page)


def test_an_empty_console_says_what_to_do(browser: Browser, server: Instance, api: Api) -> None:
    user = api("POST", "users", {"email": "empty@example.com"})
    own = api("POST", "api-keys", {"name": "only one", "scopes": ["api_keys:read"], "user_id": user["id"]})
    with watched_page(browser, origin(server)) as page:
        sign_in(page, str(own["api_key"]))
        open_page(page, "overview")
        expect(page.get_by_role("main")).to_contain_text("None.")
        open_page(page, "keys?tab=revoked")
        expect(page.get_by_role("main")).to_contain_text("No revoked keys")


def test_a_key_without_scopes_shows_its_own_page(page: Page, api: Api) -> None:
    own = api("POST", "api-keys", {"name": "powerless", "scopes": []})
    sign_in(page, str(own["api_key"]))
    expect(page.locator("h1 bdi")).to_have_text("powerless")
    expect(page.get_by_role("main")).to_contain_text("The history requires the scope api_keys:read.")


def test_a_project_without_the_feature_usage_has_no_charts(page: Page, server: Instance, api: Api) -> None:
    def leave_out(route: Route) -> None:
        response = route.fetch()
        fields = response.json()
        del fields["last_used_at"]
        route.fulfill(response=response, json=fields)

    page.route("**/v1/api-keys/current", leave_out)
    page.route("**/usage?*", lambda route: route.abort())
    sign_in(page, server.store.key)
    open_page(page, "keys")
    expect(page.get_by_role("link", name="Unused for 30 days")).to_have_count(0)
    expect(page.get_by_role("columnheader", name="Last used")).to_have_count(0)
    for path in ("overview", path_of("keys/KEY", api)):
        open_page(page, path)
        expect(page.get_by_role("heading", name="Usage")).to_have_count(0)
        expect(page.get_by_role("alert")).to_have_count(0)


def test_the_first_paint_is_fast(browser: Browser, server: Instance) -> None:
    def first_paint() -> float:
        with watched_page(browser, origin(server)) as page:
            page.goto("/console/")
            page.get_by_label("API key").wait_for()
            found: float = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            return found

    def is_fast() -> bool:
        busy = os.getloadavg()[0] / (os.cpu_count() or 1)
        return first_paint() < FIRST_PAINT * max(1, busy)

    until(is_fast)


def test_without_javascript_the_page_says_that_it_needs_it(browser: Browser, server: Instance) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{origin(server)}/console/")
    expect(page.locator("noscript p")).to_be_visible()
    assert "This page needs JavaScript." in page.content()
    context.close()


def test_the_docs_work_without_internet_access(page: Page, server: Instance) -> None:
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("Value").fill(server.store.key)
    page.locator(".modal-ux button.authorize").click()
    page.get_by_role("button", name="Close").last.click()
    operation = page.locator(".opblock", has_text="/v1/users/me").first
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation).to_contain_text('"email": "admin@example.com"')


def test_one_command_and_one_paste_show_the_first_request_in_a_chart(project: Path, browser: Browser) -> None:
    copy = project.with_name("first")
    shutil.copytree(project, copy, symlinks=True)
    port = free_port()
    with running(copy, port) as key, watched_page(browser, f"http://127.0.0.1:{port}") as page:
        assert f"Open http://127.0.0.1:{port}/ in a browser" in copy.with_suffix(".log").read_text()
        sign_in(page, key)
        expect(page.locator(".totals dd").first).to_have_text(re.compile("[1-9]"), timeout=20_000)
        assert page.locator("rect.requests[height]:not([height='0'])").count() == 1


def test_the_console_of_a_server_that_hides_it_is_not_found(project: Path, sqlite_seed: SqliteStore) -> None:
    instance = Instance(project, sqlite_seed)
    with instance.running():
        connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=10)
        for path in ("/", "/console", "/console/", "/console/main.js"):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 404
            response.read()
        connection.close()
