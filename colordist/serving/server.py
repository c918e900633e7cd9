"""Run the page's server until Ctrl-C or SIGTERM."""

import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from colordist.console import log_handler, say
from colordist.errors import one_line
from colordist.extras import needs_extra

if TYPE_CHECKING:
    import gradio as gr

_GRACE = 1  # seconds for downloads that are under way


def require_gradio() -> None:
    """Raise UserError where the extra is missing, without an import, which takes seconds."""
    with needs_extra("demo", "demo"):
        if importlib.util.find_spec("gradio") is None:
            raise ModuleNotFoundError(name="gradio")


def prepare(folder: Path) -> None:
    """Set Gradio's environment variables, before it is imported: files go to this folder, no usage statistics."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder)


def serve(page: "gr.Blocks", listener: socket.socket, look: dict[str, Any], megabytes: int) -> None:
    """Serve a page at an open socket until Ctrl-C or SIGTERM. Called in the main thread.

    look: style sheet, theme and head of the page. megabytes: most of a file that is uploaded.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=megabytes * 2**20,
        show_error=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        **look,
    )
    page.has_launched = True  # else Gradio lets requests name any file of this machine
    inner, stopped = app.routes[-1].app, threading.Event()

    class Server(uvicorn.Server):  # type: ignore[misc]  # without types
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.should_exit |= stopped.is_set()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Stop: end the streams of open pages, too, which would last as long as these are open."""
            page.is_running = False
            inner.stop_event.set()
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        _without_proxy(app), log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE, lifespan="on"
    )
    with _one_line_logs():
        _take_signals(stopped)
        Server(config).run(sockets=[listener])


def _without_proxy(app: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse Gradio's routes that fetch what a request names from another server."""

    async def guarded(scope: dict[str, Any], receive: object, send: Callable[..., Any]) -> None:
        path = scope.get("path", "")
        if "/proxy=" in path or ("/file=" in path and "://" in path.replace(":/", "://")):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"nothing is fetched from other servers"})
        else:
            await app(scope, receive, send)

    return guarded


def _take_signals(stopped: threading.Event) -> None:
    """Take Ctrl-C and SIGTERM for the normal end, also when uvicorn raises them again, and while files are removed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())


@contextmanager
def _one_line_logs() -> Iterator[None]:
    """Log errors of the server as one line each, also those for which Gradio prints a traceback."""
    from gradio import queueing, route_utils, routes

    def print_line() -> None:
        say(f"a request failed: {one_line(sys.exc_info()[1] or '')}", error=True)

    for module in (queueing, route_utils, routes):
        module.traceback = SimpleNamespace(**vars(traceback) | {"print_exc": print_line})

    def shorten(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            record.msg, record.args = f"a request failed: {one_line(record.exc_info[1])}", ()
            record.exc_info = None
        return record.levelno >= logging.ERROR

    log, handler = logging.getLogger("uvicorn"), log_handler()
    handler.addFilter(shorten)
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
