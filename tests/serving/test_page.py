"""The page without a browser: nothing is kept, uploads end at the limit, and the command says what is wrong."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.serving import page
from training_fla.serving.limits import Limits
from training_fla.serving.page import ClipService
from training_fla.serving.translation import ClipTranslator
from training_fla.serving.upload_folder import UploadFolder

from .page_server import LIMITS, MEGABYTES, Server, SlowTranslator, draw_clip, tiny_pipeline, translator_here
from .test_limits import wait_until


@pytest.fixture(autouse=True)
def no_reading_process(monkeypatch):
    """No clip is read by `fla serve` here, and multiprocessing keeps a folder for as long as the tests run."""
    monkeypatch.setattr(page.ReadingProcess, "start_early", lambda self: None)


@pytest.fixture(scope="module")
def translator():
    return translator_here(tiny_pipeline(), num_beams=2)


@pytest.fixture
def service(translator):
    with UploadFolder(keep_seconds=600) as uploads:
        yield ClipService(translator, uploads)


def send(service, num_frames: int = 10) -> dict:
    folder = service.uploads.path / "hash"
    folder.mkdir()
    return {"path": str(draw_clip(folder / "clip.mp4", num_frames)), "job": "a1"}


def kept(service) -> list[Path]:
    return list(service.uploads.path.iterdir())


def test_a_clip_is_deleted_as_soon_as_it_has_been_read(service):
    running = service.translate(send(service))
    assert kept(service) and next(running)["stage"] == "reading"
    assert next(running)["stage"] == "looking" and not kept(service)
    states = list(running)
    assert states[-1]["stage"] == "done" and all(state["job"] == "a1" for state in states)


def test_a_clip_that_is_refused_is_deleted(service):
    states = list(service.translate(send(service, 130)))
    assert states[-1]["stage"] == "refused" and "longer than 4 seconds" in states[-1]["message"]
    assert states[-1]["job"] == "a1" and not kept(service)


def test_a_clip_is_deleted_when_something_breaks(service, monkeypatch, caplog):
    monkeypatch.setattr(ClipTranslator, "states", lambda *args, **kwargs: 1 / 0)
    last = list(service.translate(send(service)))[-1]
    assert last["stage"] == "refused" and "Something went wrong on the server" in last["message"]
    assert "division" not in last["message"] and "division by zero" in caplog.text and not kept(service)


def test_a_clip_is_deleted_when_nobody_waits(service, translator):
    service.translator = SlowTranslator(translator)
    running = service.translate(send(service))
    next(running)
    assert kept(service)
    running.close()
    assert not kept(service)


@pytest.mark.parametrize("request_", [None, 5, [], {}, {"path": "/etc/passwd"}, {"path": None, "job": [1]}])
def test_nonsense_is_refused(service, request_):
    (state,) = service.translate(request_)
    assert state["stage"] == "refused" and "Send it again" in state["message"]


def test_the_page_names_its_limits_and_nothing_from_elsewhere():
    markup = page.page_markup(Limits(max_megabytes=2.5, max_seconds=12), "<b>&${1}", 4, ["zh_CN", "swh_Latn"])
    options = re.findall('<option value="([^"]*)">([^<]*)</option>', markup)
    assert options == [("zh_CN", "Chinese"), ("swh_Latn", "swh_Latn")]
    assert (
        "Up to 12 seconds and 2.5 MB" in markup
        and "&lt;b&gt;&amp;&#36;&#123;1&#125;" in markup
        and f'"{int(2.5 * 2**20)}"' in markup
    )
    assert not re.search(r"@[A-Z_]+@", markup)
    for name in ("page.html", "page.css", "page.js"):
        text = (page.FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.replace("https and localhost", "") and "@import" not in text


def test_every_part_the_script_asks_for_is_on_the_page():
    script = (page.FOLDER / "page.js").read_text(encoding="utf-8")
    ids = re.findall(r'id="fla-([\w-]+)"', (page.FOLDER / "page.html").read_text(encoding="utf-8"))
    asked = set(re.findall(r"(?:\bat|\bshow)\('([\w-]+)'", script))
    assert len(ids) == len(set(ids)) and len(asked) > 20 and asked <= set(ids)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine to run the page's script with")
def test_what_a_proxy_answers_is_one_sentence_by_its_status():
    script = (page.FOLDER / "page.js").read_text(encoding="utf-8")
    function = re.search(r"function sendingError.*?\n}\n", script, re.DOTALL)[0]
    html = "<html><head><title>nginx</title></head></html>"
    messages = [f"HTTP {status}: {html}" for status in (413, 404, 502, 418)] + ["Connection errored out. Failed"]
    calls = f"console.log(JSON.stringify({messages!r}.map(sendingError)))"
    done = subprocess.run(["node", "-e", function + calls], capture_output=True, text=True, check=True)
    too_large, nowhere, away, other, broken = json.loads(done.stdout)
    assert "larger than what is taken" in too_large and "--root-path" in nowhere and "again in a minute" in away
    assert "(418)" in other and "connection" in broken and "nginx" not in done.stdout


def pieces(size: int):
    """A multipart upload of zeros, as it comes over the wire."""
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    for _ in range(size // 2**16):
        yield bytes(2**16)
    yield b"\r\n--x--\r\n"


def upload(address: str, content, **headers: str) -> tuple[int, str]:
    headers = {"Content-Type": "multipart/form-data; boundary=x", **headers}
    request = urllib.request.Request(f"{address}gradio_api/upload", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def break_off(server) -> None:
    """Send the first half of a file and close the connection."""
    _, host, port = server.address.rstrip("/").replace("//", "").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 500000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        connection.sendall(head.encode() + b"".join([*pieces(2**18)][:-1]))
        wait_until(lambda: len(server.kept()) == 2)
        assert len(server.kept()) == 2


def test_an_upload_ends_at_the_limit():
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    server = Server(LIMITS)
    largest, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            sizes = [path.stat().st_size for path in server.kept() if path.exists()]
            largest[0] = max(largest[0], *sizes, 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert upload(server.address, pieces(2**18))[0] == 200 and len(server.kept()) == 1
        several = b"\r\n".join([b"".join([*pieces(2**19)][:-1])] * 3) + b"\r\n--x--\r\n"
        for content in (pieces(2**28), [several], several):  # one large file, several small ones, told beforehand
            try:
                status, message = upload(server.address, content)
                assert status == 413 and "exceeded maximum allowed size" in message
            except urllib.error.URLError as error:  # the server hung up before the answer was read
                assert isinstance(error.reason, (BrokenPipeError, ConnectionResetError))
            assert len(server.kept()) == 1, "nothing is left of the large one"
        break_off(server)
        wait_until(lambda: len(server.kept()) == 1)
        assert len(server.kept()) == 1, "nothing is left of what broke off"
        for header in ("X-Forwarded-Host", "X-Gradio-Server"):
            request = urllib.request.Request(server.address, headers={header: "http://evil.example"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert b"evil.example" not in answer.read()
        server.uploads.sweep(now=2**40)
        assert not server.kept()
    finally:
        stop.set()
        watcher.join()
        server.close()
    assert largest[0] <= MEGABYTES * 2**20 and not server.uploads.path.exists()


@pytest.mark.parametrize("root_path", ["/signs", "https://example.org/signs"])
def test_behind_a_proxy_the_page_asks_where_it_is_shown(root_path):
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    server = Server(LIMITS, root_path)
    try:
        headers = {"Host": "example.org", "X-Forwarded-Proto": "https"}
        request = urllib.request.Request(server.address.replace(root_path, ""), headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert '"root":"https://example.org/signs"' in answer.read().decode()
    finally:
        server.close()


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert main(["serve", "someone/model", "--port", "0"]) == 2
    assert 'python -m pip install "fla-llm[serve]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/model", "--port", "0"], "/no/such/model"),
        (["/no/such/model", "--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["/no/such/model", "--root-path", "signs"], "--root-path signs"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, capsys, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_found_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["serve", "someone/model", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error and "--port" in error


def test_a_port_that_is_taken_meanwhile_is_one_line_too():
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")

    class PageOfTwoServers:
        def launch(self, **options):
            raise OSError(f"Cannot find empty port in range: {options['server_port']}")

    with pytest.raises(InputError, match=r"127\.0\.0\.1:7860.*--port"):
        page.launch_page(PageOfTwoServers(), "127.0.0.1", 7860, 1)


def test_help_imports_neither_gradio_nor_torch():
    script = (
        "import sys\nfrom training_fla.cli import main\n"
        "try: main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'gradio', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "fla serve runs/stage2" in done.stdout and done.stdout.splitlines()[-1] == "[]"
