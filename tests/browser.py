"""A page that was written to a file, in a real browser: what it asks for, how wide it is, and what axe finds."""

import shutil
from pathlib import Path

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def check_page(file: Path, width: int, scheme: str) -> None:
    """Axe finds nothing, nothing lies beside the window, and nothing but the file itself is asked for."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian's package is `chromium`)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed (extra `test`)")
    asked, told = [], []
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.goto(file.absolute().as_uri())
        page.evaluate((Path(axe.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        overflow = page.evaluate("document.documentElement.scrollWidth")
        broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        browser.close()
    assert len(found["passes"]) > 10 and overflow == width and not broken and not told
    assert [url for url in asked if not url.startswith("data:")] == [file.absolute().as_uri()]
    assert not [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]]
