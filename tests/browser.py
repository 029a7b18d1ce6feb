"""Chromium, and pages that are signed in to the console."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-background-networking"]
ANNOUNCED = "Failed to load resource"  # Chromium says it of every response that is an error
WATCH_POLICY = "addEventListener('securitypolicyviolation', one => console.error('CSP', one.blockedURI))"


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(browser: Browser, origin: str, **options: object) -> Iterator[Page]:
    """Fails if the page reports an error, asks, violates its policy, or contacts another origin."""
    problems: list[str] = []
    context = browser.new_context(base_url=origin, locale="en-GB", **options)  # type: ignore[arg-type] # as given
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.add_init_script(WATCH_POLICY)

    def check(request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(origin).netloc and not request.url.startswith("data:"):
            problems.append(f"request to {request.url}")

    page.on("request", check)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text)
            if message.type in {"error", "warning"} and not message.text.startswith(ANNOUNCED)
            else None
        ),
    )
    try:
        yield page
        page.evaluate("document.title")  # what was reported before has arrived
        assert not problems, problems
    finally:
        context.close()


def sign_in(page: Page, key: str, *, keep: bool = False) -> None:
    if page.url == "about:blank":
        page.goto("/")
    page.get_by_label("API key").fill(key)
    page.get_by_label("Keep until").set_checked(keep)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def open_page(page: Page, path: str) -> None:
    """A page of the console, when everything is loaded."""
    page.evaluate("hash => { location.hash = hash }", f"/{path}")
    page.get_by_role("heading", level=1).wait_for()
    expect(page.locator("[aria-busy=true], .placeholder, .loading")).to_have_count(0, timeout=20_000)
    page.wait_for_load_state("networkidle")
