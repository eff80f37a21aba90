"""The Gradio app: one component of our own markup, a queue, and a folder that forgets.

Gradio brings the server, the queue, the upload and the stream of states; what people see is `page.html`, dressed by
`page.css` and moved by `page.js`. Gradio's own video component is not used: it converts by FFmpeg's program what it is
sent, keeps it for its player, and mirrors what the camera saw.
"""

import html
import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from training_fla.files import InputError
from training_fla.serving.limits import CancelledError, Limits, RefusedError, WorkClock
from training_fla.serving.translation import ClipTranslator
from training_fla.serving.upload_folder import UploadFolder

FOLDER = Path(__file__).parent
logger = logging.getLogger(__name__)


class ClipService:
    """What the page asks the server for.

    Args:
        translator ([`ClipTranslator`]): translates.
        uploads ([`UploadFolder`]): holds what was sent.
    """

    def __init__(self, translator: ClipTranslator, uploads: UploadFolder):
        self.translator, self.uploads = translator, uploads

    def translate(self, request) -> Iterator[dict]:
        """Translate the clip that the page sent before, and delete it whatever happens.

        Args:
            request (`dict`): `path`, where the clip was put, and `job`, by which the page knows its answers again.

        Yields:
            `dict`: the states of [`~training_fla.serving.translation`], with `job`; at last `done` or `refused`.
        """
        request = request if isinstance(request, dict) else {}
        job = {"job": str(request.get("job", ""))[:40]}
        clock = WorkClock(self.translator.limits.time_limit)
        path = None
        try:
            path = self.uploads.claim(request.get("path"))
            for state in self.translator.states(path, clock, delete=lambda: self.uploads.discard(path)):
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


def build_page(service: ClipService, title: str):
    """Put the page together.

    Args:
        service ([`ClipService`]): behind it.
        title (`str`): the model's name, shown below the heading.

    Returns:
        `gradio.Blocks`: with its queue, ready for [`launch_page`].

    Raises:
        InputError: Gradio is not installed.
    """
    gradio = import_gradio()
    limits = service.translator.limits
    with gradio.Blocks(
        title="Sign language translation",
        analytics_enabled=False,
    ) as page:
        view = gradio.HTML(
            value={},
            html_template=page_markup(limits, title, service.translator.processor.video_processor.frame_stride),
            js_on_load=(FOLDER / "page.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="fla-page",
        )
        work = view.submit(
            service.translate, view, view,
            show_progress="hidden", concurrency_limit=1, api_visibility="private",
        )  # fmt: skip
        # A full queue and a lost connection raise no error on the server, so the page is told here.
        work.failure(None, None, None, js="() => window.flaFailed?.()")
        # Gradio remembers what each visitor was shown last: frames of a person.
        forget = {"fn": dict, "outputs": view, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
        work.then(**forget)
        view.cancel(**forget, cancels=[work])
    page.queue(max_size=limits.max_waiting, default_concurrency_limit=1, api_open=False)
    return page


def page_markup(limits: Limits, title: str, frame_stride: int) -> str:
    """`page.html` with the limits and the model's name in their places.

    Args:
        limits ([`Limits`]): of a clip.
        title (`str`): the model's name.
        frame_stride (`int`): one source frame in so many is sampled.

    Returns:
        `str`: the template of the component.
    """
    # The template is one of JavaScript's and of Handlebars', both of which would read a name with these signs.
    escaped = "".join(f"&#{ord(sign)};" if sign in "${}`\\@" else sign for sign in html.escape(title))
    values = {
        "TITLE": escaped,
        "MAX_SECONDS": f"{limits.usable_seconds(frame_stride):g}",
        "MAX_MEGABYTES": f"{limits.max_megabytes:g}",
        "MAX_BYTES": str(limits.max_bytes),
        "KEEP_MINUTES": f"{limits.keep_seconds / 60:.0f}",
    }
    markup = (FOLDER / "page.html").read_text(encoding="utf-8")
    for name, value in values.items():
        markup = markup.replace(f"@{name}@", value)
    return markup


def launch_page(page, host: str, port: int, max_bytes: int) -> str:
    """Start the server, and return while it runs.

    Args:
        page (`gradio.Blocks`): from [`build_page`].
        host (`str`): address to listen at.
        port (`int`): to listen at; 0 takes a free one.
        max_bytes (`int`): of an upload; the connection is closed as soon as more has come.

    Returns:
        `str`: the page's address.

    Raises:
        InputError: the port is taken.
    """
    gradio = import_gradio()
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    theme = gradio.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or free_port(host),
            max_file_size=max_bytes,
            state_session_capacity=1,  # Gradio remembers what its last so many visitors were shown: frames of a person
            theme=theme,
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
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port}: choose another --port (0 takes a free one)") from error
    return address


def free_port(host: str) -> int:
    """A port that nothing listens at.

    Args:
        host (`str`): address of this machine.

    Returns:
        `int`: the port.
    """
    import socket

    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


def import_gradio():
    """Gradio, told to call nobody.

    Returns:
        `module`: `gradio`.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("gradio") is None:
        raise InputError('`fla serve` needs Gradio: python -m pip install "fla-llm[serve]"')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio
