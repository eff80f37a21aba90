"""Live captions of the page: what the server answers, and the tab in a browser whose camera plays a clip."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.captions.test_pauses import SIGNED, pictures
from training_fla.serving import live
from training_fla.serving.limits import Limits
from training_fla.serving.live import LiveService

from .page_server import MEGABYTES, Server, tiny_pipeline

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_SECONDS = 240  # for a condition, never a wait


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def jpeg(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).convert("RGB").save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()


def test_what_a_camera_shows_is_captioned(pipe):
    service = LiveService(pipe, num_beams=2)
    sent = [{"at": second, "jpeg": jpeg(picture)} for second, picture in pictures()]
    captions, drafts = [], []
    for place in range(0, len(sent), 8):
        request = {"visitor": "one", "pictures": sent[place : place + 8], "is_last": place + 8 >= len(sent)}
        answer = service.caption(request)
        captions += answer["captions"]
        drafts += [answer["draft"]] if "draft" in answer else []
        seconds = request["pictures"][-1]["at"]
        if any(first + 0.5 < seconds < last for first, last in SIGNED):
            assert answer["is_signing"]
    assert len(captions) == len(SIGNED) and all(caption["text"] for caption in captions)
    for caption, (first, last) in zip(captions, SIGNED, strict=True):
        assert caption["start"] == pytest.approx(first - 0.2, abs=0.25)
        assert caption["end"] == pytest.approx(last + 0.2, abs=0.25)
    assert len(drafts) >= 3
    assert service.visitor is None and service.captioner is None, "nothing is kept"


def test_one_visitor_at_a_time_until_he_has_left(pipe, monkeypatch):
    service = LiveService(pipe)
    picture = {"at": 0.0, "jpeg": jpeg(np.zeros((48, 64)))}
    assert service.caption({"visitor": "one", "pictures": [picture]})["captions"] == []
    assert "Somebody else" in service.caption({"visitor": "two", "pictures": [picture]})["refused"]
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.0)
    assert "refused" not in service.caption({"visitor": "two", "pictures": [picture]})


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {"pictures": []},
        {"visitor": "one", "pictures": [{"at": 0, "jpeg": "not base64!"}]},
        {"visitor": "one", "pictures": [{"at": 0, "jpeg": base64.b64encode(b"no picture").decode()}]},
        {"visitor": "one", "pictures": [{"at": 0, "jpeg": jpeg(np.zeros((2000, 2000)))}]},
        {"visitor": "one", "pictures": [{"at": "now", "jpeg": ""}]},
        {"visitor": "one", "pictures": [{"at": float("inf"), "jpeg": jpeg(np.zeros((48, 64)))}]},
        {"visitor": "one", "pictures": 7},
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused(pipe, request_, caplog):
    assert "not pictures" in LiveService(pipe).caption(request_)["refused"]
    assert not caplog.records


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera plays the drawn signer, again and again."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian's package is `chromium`)")
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
    file = tmp_path_factory.mktemp("camera") / "signer.y4m"
    with open(file, "wb") as video:
        video.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg\n")
        for _, picture in pictures():
            grey = Image.fromarray(picture.astype(np.uint8)).resize((320, 240))
            for _ in range(2):
                video.write(b"FRAME\n" + np.asarray(grey).tobytes() + b"\x80" * (160 * 120 * 2))
    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={file}",
    ]  # fmt: skip
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def server():
    server = Server(Limits(max_megabytes=MEGABYTES, max_seconds=4, max_waiting=1))
    yield server
    server.close()


def test_the_caption_of_a_camera_appears_by_keyboard_and_to_screen_readers(browser, server):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed").__path__[0]
    context = browser.new_context(viewport={"width": 1000, "height": 900}, reduced_motion="reduce")
    page, asked = context.new_page(), []
    page.set_default_timeout(TIMEOUT_SECONDS * 1000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(f"error: {error}"))
    page.goto(server.address)
    page.wait_for_selector("#fla-go", state="attached")

    # By keyboard alone: to the other tab, to the button, on, and off again.
    page.get_by_role("tab", name="A clip").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#fla-live-start")
    page.focus("#fla-live-start")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#fla-live-status').textContent.startsWith('The camera is on')")
    assert page.evaluate("document.activeElement.id") == "fla-live-stop"
    page.wait_for_function("document.querySelectorAll('#fla-live-captions p').length >= 1")
    line = page.text_content("#fla-live-captions p")
    assert re.match(r"\d+:\d\d \S", line)

    # A log that is live: screen readers say what is added. Drafts, which change all the time, they do not say.
    log = page.get_by_role("log", name="Captions")
    assert log.get_attribute("aria-live") == "polite" and line in log.text_content()
    assert page.get_attribute("#fla-live-draft", "aria-live") == "off"
    assert "one person in front of one camera" in page.text_content("[aria-labelledby=fla-live-title]")
    page.evaluate((Path(axe) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert not [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]]

    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#fla-live-status').textContent === 'The camera is off.'")
    assert page.evaluate("document.activeElement.id") == "fla-live-start"
    assert page.evaluate("document.querySelector('#fla-live-video').srcObject") is None
    page.wait_for_timeout(100)
    context.close()
    assert not [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
    assert not server.kept() and not server.remembered()
