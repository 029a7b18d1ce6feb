"""Pictures of the console for the READMEs, from the data of the demo."""

import shutil

from tests.bakery import BUILD, PROJECT, bake
from tests.browser import chromium, open_page, sign_in, watched_page
from tests.demo import free_port, running
from tests.seed import seed

SCREENSHOTS = BUILD / "screenshots"
DOCS = PROJECT / "docs"
SIZE = {"width": 1280, "height": 860}


def main() -> None:
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    project = bake(SCREENSHOTS)
    port = free_port()
    with running(project, port) as key:
        seed(port, key, project / "app.db", days=30)
        with (
            chromium() as browser,
            watched_page(browser, f"http://127.0.0.1:{port}", viewport=SIZE, color_scheme="light") as page,
        ):
            sign_in(page, key)
            page.mouse.move(0, 0)
            open_page(page, "overview")
            page.screenshot(path=DOCS / "console-overview.png")
            open_page(page, "keys")
            page.get_by_role("link", name="nightly report").click()
            page.locator(".chart").wait_for()
            open_page(page, page.url.partition("#/")[2])
            page.screenshot(path=DOCS / "console-key.png")


if __name__ == "__main__":
    main()
