"""The page in a real browser: what a visitor does with the mouse, the keyboard, a camera and a screen reader."""

import re
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from training_fla.serving.limits import Limits

from .page_server import MEGABYTES, Server, SlowTranslator, draw_clip

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on this machine (Debian's package is `chromium`)", allow_module_level=True)
pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
axe_folder = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed").__path__[0]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
TIMEOUT_SECONDS = 240  # for a condition, never a wait: a machine may be busy with other tests
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def server():
    server = Server(Limits(max_megabytes=MEGABYTES, max_seconds=4, max_waiting=1))
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page; at the end nothing may have been asked of anybody else, and nothing may be left."""
    contexts, asked = [], []

    def open_page(viewport=DESKTOP, **options):
        contexts.append(browser.new_context(viewport=viewport, reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT_SECONDS * 1000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(f"error: {error}"))
        page.goto(server.address)
        page.wait_for_selector("#fla-go", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    foreign = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
    assert asked and not foreign
    assert not server.kept()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    draw_clip(folder / "clip.mp4")
    (folder / "text.mp4").write_text("not a video\n" * 50)
    with open(folder / "large.mp4", "wb") as file:
        file.truncate(2 * 2**30)  # holes: no room is taken
    draw_clip(folder / "minutes.mp4", 600, rate=1, options={"preset": "ultrafast", "crf": "40"})
    return folder


def wait_until(condition, what: str) -> None:
    """Wait for something that the page does not show."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def finished(page) -> str:
    page.wait_for_function("document.querySelector('#fla-status').textContent.startsWith('Done')")
    return page.text_content("#fla-sentence")


def refused(page) -> str:
    page.wait_for_function("document.querySelector('#fla-error').textContent")
    return page.text_content("#fla-error")


def translate(page, file: Path) -> str:
    page.set_input_files("#fla-file", file)
    page.click("#fla-go")
    return finished(page)


def test_a_clip_is_translated_with_alternatives_and_attention(visit, server, clips):
    page = visit()
    assert page.text_content(".fla-hint b") == "tests/tiny <model> ${1} {{2}} @3@"
    assert page.is_disabled("#fla-go") and "Up to 4 seconds and 1 MB" in page.text_content("#fla-limits")
    expected = server.pipe(str(clips / "clip.mp4"), num_beams=3, num_return_sequences=3)
    assert translate(page, clips / "clip.mp4") == expected[0]["translation_text"]
    assert expected[0]["translation_text"] in page.text_content("#fla-status"), "a screen reader says it"
    assert page.get_attribute("#fla-sentence", "lang") == "de"
    assert f"{100 * expected[0]['score']:.0f} %" in page.text_content("#fla-score")
    others = page.locator("#fla-alternatives li span:first-child").all_text_contents()
    assert others == [other["translation_text"] for other in expected[1:]]
    assert page.locator("#fla-frames li").count() == 7
    assert "7 of the clip’s 26 frames (1.0 seconds)" in page.text_content("#fla-seen-hint")

    words = page.locator("#fla-words li")
    assert "".join(words.locator("button").all_text_contents()) == expected[0]["translation_text"].replace(" ", "")
    times = re.fullmatch(r"(\d\.\d\d) to (\d\.\d\d) s, (\d+) %", words.nth(1).locator(".fla-when").text_content())
    marked = words.nth(1).locator("rect.fla-meant").count()
    assert words.nth(1).locator("rect").count() == 7 and 50 <= int(times[3]) <= 100
    words.nth(1).locator("button").click()
    meant = page.locator("#fla-frames li.fla-meant")
    assert meant.count() == marked and meant.first.text_content() == f"{times[1]} s"
    page.wait_for_function(f"document.querySelector('#fla-video').currentTime >= {times[1]}")
    words.nth(1).locator("button").click()
    assert meant.count() == 0
    wait_until(lambda: not server.remembered(), "the frames are in the browser only")  # it is told a moment later


def test_the_keyboard_is_enough(visit, clips):
    page = visit()
    # From the start: a dialog that opens while Chromium is still being told to hand it over is lost.
    page.on("filechooser", lambda chooser: chooser.set_files(clips / "clip.mp4"))
    focused = "document.activeElement.id || document.activeElement.className"

    def tab_to(name: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            if name in page.evaluate(focused):
                assert page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        pytest.fail(f"{name} is not reached by Tab")

    tab_to("fla-file")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('#fla-go').disabled")
    tab_to("fla-go")
    page.keyboard.press("Enter")
    finished(page)
    assert page.evaluate(focused) == "fla-go", "the focus is not lost with the button that had it"
    tab_to("fla-strip")
    tab_to("fla-word")
    page.keyboard.press("Space")
    assert page.locator("#fla-words button[aria-pressed=true]").count() == 1
    assert page.locator("#fla-frames li.fla-meant").count() >= 1


def axe_faults(page) -> list[tuple[str, str]]:
    """What axe-core finds, serious or not."""
    page.evaluate((Path(axe_folder) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 15
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, clips, scheme, viewport):
    page = visit(viewport, color_scheme=scheme)

    def check():
        assert not axe_faults(page)
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]

    check()
    dark = page.evaluate("getComputedStyle(document.querySelector('.fla')).getPropertyValue('--ground')")
    assert dark.strip() == ("#10141a" if scheme == "dark" else "#ffffff")
    translate(page, clips / "clip.mp4")
    page.locator("#fla-words button").first.click()
    check()
    page.set_input_files("#fla-file", clips / "text.mp4")
    page.click("#fla-go")
    refused(page)
    check()


def test_what_is_too_much_or_no_video_gets_a_clear_message(visit, server, clips):
    page = visit(PHONE)
    sent = []
    page.on("request", lambda request: sent.append(request.url) if "upload" in request.url else None)
    page.set_input_files("#fla-file", clips / "large.mp4")
    assert refused(page) == "This file is 2048 MB; 1 MB is the most that is taken here."
    assert page.is_disabled("#fla-go")
    page.set_input_files("#fla-file", clips / "minutes.mp4")
    assert "longer than 4 seconds" in refused(page) and "it lasts 10:00" in refused(page)
    assert page.is_disabled("#fla-go") and not sent, "neither was sent"
    page.set_input_files("#fla-file", clips / "text.mp4")
    page.click("#fla-go")
    assert "This file cannot be read as a video" in refused(page) and str(server.uploads.path) not in refused(page)
    assert sent and page.is_visible("#fla-clear")
    page.click("#fla-clear")
    assert page.text_content("#fla-error") == "" and page.is_disabled("#fla-go")
    translate(page, clips / "clip.mp4")


def record(page) -> str:
    """Record for a second or more; what the page then says of the file."""
    page.click("#fla-camera")
    page.wait_for_function("document.querySelector('#fla-video').videoWidth > 0")
    page.click("#fla-record")
    # In the page itself: on a busy machine the recording might have ended before a click from here.
    page.wait_for_function("""() => {
        if (!/^0:0[1-4] of 0:04$/.test(document.querySelector('#fla-timer').textContent)) return false;
        document.querySelector('#fla-record').click();
        return true;
    }""")
    page.wait_for_function("!document.querySelector('#fla-go').disabled")
    page.wait_for_function(
        "document.querySelector('#fla-video').readyState > 0 || /cannot/.test(document.body.innerText)"
    )
    return page.text_content("#fla-name")


def test_a_clip_is_recorded_with_the_camera(visit):
    page = visit()
    # Chromium on a busy machine may not have encoded a single frame: people would record again, too.
    names = iter(lambda: record(page), "recording.webm")
    for _ in zip(range(9), names, strict=False):
        page.click("#fla-clear")
    assert page.text_content("#fla-name") == "recording.webm"
    page.click("#fla-go")
    finished(page)
    assert int(page.text_content("#fla-seen-hint").split()[0]) >= 1


def test_a_long_translation_blocks_nobody_and_can_be_stopped(visit, server, clips):
    quick = server.service.translator
    server.service.translator = slow = SlowTranslator(quick)
    try:
        first, second, third = visit(), visit(), visit()
        for page in (first, second):
            page.set_input_files("#fla-file", clips / "clip.mp4")
            page.click("#fla-go")
        first.wait_for_function("document.querySelector('#fla-status').textContent.startsWith('Looking')")
        second.wait_for_function("document.querySelector('#fla-status').textContent.startsWith('Waiting')")
        assert first.evaluate("document.querySelector('#fla-progress').value") == 0.25 and not axe_faults(first)
        assert urllib.request.urlopen(server.address, timeout=TIMEOUT_SECONDS).status == 200
        third.set_input_files("#fla-file", clips / "clip.mp4")
        wait_until(lambda: server.num_waiting() == 1, "the second clip waits")
        third.click("#fla-go")
        assert "too many are waiting" in refused(third)
        first.click("#fla-stop")
        assert first.text_content("#fla-status") == "Stopped."
        second.wait_for_function("document.querySelector('#fla-status').textContent.startsWith('Looking')")
        slow.go_on.set()
        assert finished(second) == "langsam"
        assert len(server.page.state_holder.session_data) <= 1, "what others were shown is not remembered"
        assert first.text_content("#fla-status") == "Stopped." and not first.is_disabled("#fla-go")
    finally:
        slow.go_on.set()
        server.service.translator = quick
        server.uploads.sweep(now=2**40)  # what the third one sent was never asked for again
