"""The Gradio app: a tab for clips, which has a queue, and one for live captions; each is one component of our markup.

Gradio brings the server, the queue, the upload and the stream of states; what people see is `page.html`, with
`page.css` and `page.js`. Gradio's own video component is not used: it converts by FFmpeg's program what it is sent,
keeps it for its player, and mirrors what the camera saw. Nor is its streaming image, which would queue every picture.
The live tab calls a function of the server (Gradio's `server_functions`) with the next pictures when the last ones
were answered, so that the page itself knows how many wait, and drops what is too much.
"""

import html
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from training_fla.errors import InputError
from training_fla.hub.card import SENTENCE_LANGUAGES
from training_fla.serving.limits import CancelledError, Limits, RefusedError, WorkClock
from training_fla.serving.live import LiveService, pictures_a_second
from training_fla.serving.request_limits import RequestLimits
from training_fla.serving.translation import ClipTranslator, most_frames
from training_fla.serving.upload_folder import UploadFolder
from training_fla.viewing.loading import load_pipeline
from training_fla.viewing.reading_process import ReadingProcess

FOLDER = Path(__file__).parent
logger = logging.getLogger(__name__)


def serve(
    model: str,
    title: str,
    limits: Limits,
    host: str,
    port: int,
    num_beams: int | None,
    root_path: str = "",
    **loading: str | None,
) -> None:
    """Serve the page of a model until Ctrl-C or a request to end."""
    port = free_port(host, port)  # before the model is loaded
    with UploadFolder(limits.keep_seconds) as uploads, ReadingProcess() as reading:
        reading.start_early()  # also before there are visitors, whose connections it would inherit
        import_gradio()
        pipe = load_pipeline(model, **loading)
        limits = replace(limits, max_frames=most_frames(pipe))
        clips = ClipService(ClipTranslator(pipe, limits, num_beams, reading), uploads)
        page = build_page(clips, LiveService(pipe, num_beams), title)
        free_port(host, port)  # still: another server may have been loading its model
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        address = launch_page(page, host, port, limits.max_bytes, root_path)
        print(f"serving {model} at {address} (Ctrl-C stops it)", flush=True)
        stop.wait()
        page.close(verbose=False)


class ClipService:
    """What the page asks the server for."""

    def __init__(self, translator: ClipTranslator, uploads: UploadFolder):
        self.translator, self.uploads = translator, uploads

    def translate(self, request) -> Iterator[dict]:
        """Translate the clip that the page sent before, and delete it in every case.

        `request` names its `path`, maybe the `language` of the sentence, and the `job` by which the page knows the
        answers again. Yields the states of [`~training_fla.serving.translation`], with `job`; the last one is `done`
        or `refused`.
        """
        request = request if isinstance(request, dict) else {}
        job = {"job": str(request.get("job", ""))[:40]}
        clock = WorkClock(self.translator.limits.time_limit)
        path = None
        try:
            path = self.uploads.claim(request.get("path"))
            delete, language = lambda: self.uploads.discard(path), request.get("language")
            for state in self.translator.states(path, clock, delete, language):
                yield state | job
        except RefusedError as refusal:
            yield {"stage": "refused", "message": str(refusal)} | job
        except CancelledError:
            pass
        except Exception:
            logger.exception("a clip was not translated")
            yield {"stage": "refused", "message": "Something went wrong on the server. The clip was deleted."} | job
        finally:
            clock.cancelled = True
            if path is not None:
                self.uploads.discard(path)


def build_page(service: ClipService, live: LiveService, title: str):
    """The page with its queue, ready for [`launch_page`]; the title is the model's name below the heading."""
    gradio = import_gradio()
    limits, processor, model = service.translator.limits, service.translator.processor, service.translator.model
    stride = processor.video_processor.frame_stride
    private = {"show_progress": "hidden", "api_visibility": "private"}
    ours = {"value": {}, "apply_default_css": False}

    def caption(request):  # Gradio marks it by an attribute, which a method cannot have
        return live.caption(request)

    with gradio.Blocks(title="Sign language translation", analytics_enabled=False) as page, gradio.Tabs():
        with gradio.Tab("A clip", elem_id="fla-tab-clip"):
            view = gradio.HTML(
                html_template=page_markup(limits, title, stride, model.languages),
                js_on_load=(FOLDER / "page.js").read_text(encoding="utf-8"),
                elem_id="fla-page",
                **ours,
            )
        with gradio.Tab("Live captions", elem_id="fla-tab-live"):
            values = {"TITLE": escaped(title), "PICTURES_A_SECOND": f"{pictures_a_second(stride):g}"}
            gradio.HTML(
                html_template=filled("live.html", values),
                js_on_load=(FOLDER / "live.js").read_text(encoding="utf-8"),
                server_functions=[caption],
                **ours,
            )
        work = view.submit(service.translate, view, view, concurrency_limit=1, **private)
        # A full queue and a lost connection raise no error on the server, so the page is notified here.
        work.failure(None, None, None, js="() => window.flaFailed?.()")
        # Gradio keeps what each visitor was shown last, frames of a person: it is cleared.
        clear = {"fn": dict, "outputs": view, "queue": False, **private}
        work.then(**clear)
        view.cancel(**clear, cancels=[work])
    page.queue(max_size=limits.max_waiting, default_concurrency_limit=1, api_open=False)
    return page


def page_markup(limits: Limits, title: str, frame_stride: int, languages: Sequence[str] = ()) -> str:
    """`page.html` with the limits, the model's name and its languages, where it has several, in their places."""
    options = "".join(f'<option value="{html.escape(code)}">{language_name(code)}</option>' for code in languages)
    values = {
        "TITLE": escaped(title),
        "LANGUAGES": options,
        "MAX_SECONDS": f"{limits.usable_seconds(frame_stride):g}",
        "MAX_MEGABYTES": f"{limits.max_megabytes:g}",
        "MAX_BYTES": str(limits.max_bytes),
        "KEEP_MINUTES": f"{limits.keep_seconds / 60:.0f}",
    }
    return filled("page.html", values)


def escaped(title: str) -> str:
    """A name in a template of JavaScript's and of Handlebars', both of which would read it with these signs."""
    return "".join(f"&#{ord(sign)};" if sign in "${}`\\@" else sign for sign in html.escape(title))


def filled(template: str, values: dict[str, str]) -> str:
    """A file of markup with values in their places."""
    markup = (FOLDER / template).read_text(encoding="utf-8")
    for name, value in values.items():
        markup = markup.replace(f"@{name}@", value)
    return markup


def language_name(code: str) -> str:
    """What a visitor reads for a language: its name where it is a common one, else its code."""
    name = SENTENCE_LANGUAGES.get(code.split("_")[0].lower())
    return html.escape(name or code)


def launch_page(page, host: str, port: int, max_bytes: int, root_path: str = "") -> str:
    """Start the server, which ends a request as soon as more than `max_bytes` were sent; its address.

    `root_path` is where a proxy shows the page: a path of its own address, or the whole address.
    """
    gradio = import_gradio()
    from starlette.middleware import Middleware

    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    options = dict(
        server_name=host,
        server_port=port,
        root_path=root_path,
        max_file_size=max_bytes,
        app_kwargs={"middleware": [Middleware(RequestLimits, max_bytes=max_bytes)]},
        state_session_capacity=1,  # of how many visitors Gradio remembers what they were shown
        theme=gradio.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"]),
        # Not as `css`: Gradio would confine it to a part of the page.
        head=f"<style>{(FOLDER / 'page.css').read_text(encoding='utf-8')}</style>",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        pwa=False,
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    try:
        _, address, _ = page.launch(**options)
    except OSError as error:  # another server took it in the meantime
        raise InputError(port_is_taken(host, port)) from error
    return address


def free_port(host: str, port: int) -> int:
    """The port, or a free one in the place of 0; one that is taken is refused."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return listener.getsockname()[1]
    except OSError as error:
        reason = str(error.strerror).split(" (")[0]
        raise InputError(port_is_taken(host, port, reason)) from error


def port_is_taken(host: str, port: int, reason: str = "Address already in use") -> str:
    return f"cannot listen at {host}:{port} ({reason}): choose another --port (0 takes a free one)"


def import_gradio():
    """The module `gradio`, with its telemetry switched off."""
    if find_spec("gradio") is None:
        raise InputError('`fla serve` needs Gradio: python -m pip install "fla-llm[serve]"')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio
