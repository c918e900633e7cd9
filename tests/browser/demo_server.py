"""The page of ``colordist demo`` in a process of its own, and a visitor's browser."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helpers import clean_environment
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

DONE = 120_000  # milliseconds that a request may take on a busy machine
expect.set_options(timeout=DONE)


@dataclass
class Server:
    """Where it listens, and what it has said on stderr."""

    url: str
    process: subprocess.Popen[str]
    errors: Path

    def said(self) -> str:
        return self.errors.read_text()


@contextmanager
def serving(folder: Path, model: Path, *options: str, end: signal.Signals) -> Iterator[Server]:
    """Serve a model until the end of the context. It has to end in silence, and to leave no file."""
    temporary, errors = folder / "temporary", folder / "stderr"
    temporary.mkdir()
    command = [sys.executable, "-m", "colordist.demo", str(model), "--port", "0", *options]
    environment = clean_environment() | {"TMPDIR": str(temporary), "GRADIO_SHARE": "true", "PYTHONUNBUFFERED": "1"}
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    with errors.open("w") as err:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment | threads, cwd=folder
        )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found, first + errors.read_text()
        yield Server(found[0], process, errors)
        process.send_signal(end)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
        assert list(temporary.glob("colordist-demo-*")) == []
    finally:
        process.kill()
        process.wait()


class Visitor:
    """A page of its own session, and what went wrong in it."""

    def __init__(
        self, browser: Browser, url: str, width: int = 1280, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(DONE)
        self.view: Page = context.new_page()
        self.url = url
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.view.on("console", lambda message: self._console(message))
        self.view.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.view.on("request", lambda request: self.requests.append(request.url))
        self.view.on("filechooser", lambda _: None)  # from the start: a dialog that opens earlier would be lost
        self.open()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self) -> None:
        """Open or reload the page, and wait until it is complete: Gradio shows its controls one after the other."""
        with self.view.expect_request(lambda request: "/heartbeat/" in request.url, timeout=DONE):
            self.view.goto(self.url)
        self.view.get_by_role("button", name="Colour", exact=True).wait_for(timeout=DONE)
        self.view.get_by_text("Loading...").wait_for(state="detached", timeout=DONE)
        self.view.locator("#status[role=status]").wait_for(state="attached", timeout=DONE)
        self.view.evaluate(_LISTEN)

    def upload(self, *files: Path) -> None:
        self.view.locator("#photos input[type=file]").set_input_files(files)

    def sees(self, text: str) -> None:
        """Wait until a message has been said, however shortly; what was said before it is forgotten."""
        self.view.wait_for_function(_HEARD, arg=text, timeout=DONE)

    def forget(self) -> None:
        """Let ``sees`` wait for messages from now on."""
        self.view.evaluate("window.said = []")

    def color(self, *files: Path, summary: str | None = None) -> None:
        """Upload photos, and wait until all are there."""
        self.upload(*files)
        self.sees(summary or f"{len(files)} of {len(files)} photographs {'is' if len(files) == 1 else 'are'} coloured.")

    def again(self) -> None:
        """Colour the same photos with other settings."""
        self.forget()
        self.view.get_by_role("button", name="Colour", exact=True).click()
        self.sees("photographs")

    def download(self, folder: Path, button: str = "#download") -> Path:
        """Click on a download."""
        folder.mkdir(exist_ok=True)
        with self.view.expect_download(timeout=DONE) as found:
            self.view.locator(button).click()
        file = folder / found.value.suggested_filename
        found.value.save_as(file)
        return file

    def names(self) -> Sequence[Any]:
        """Of all controls that can be seen: what they are, and their accessible name."""
        found: Sequence[Any] = self.view.evaluate(_NAMES)
        return found

    def leave(self) -> None:
        """Close the page, after a visit without a complaint, and without a request to any other server."""
        self.view.context.close()
        assert self.complaints == []
        assert [each for each in self.requests if not each.startswith((self.url, "data:", "blob:"))] == []


_LISTEN = """() => {
    window.said = [];
    const status = document.querySelector("#status");
    new MutationObserver(() => said.push(status.innerText)).observe(status, {childList: true, subtree: true});
}"""
_HEARD = """(text) => {
    const first = said.findIndex((message) => message.includes(text));
    if (first >= 0) window.said = said.slice(first);
    return first >= 0;
}"""
_NAMES = """() => [...document.querySelectorAll("input, select, textarea, button, a[href]")]
    .filter((each) => each.checkVisibility())
    .map((each) => [each.outerHTML.slice(0, 200),
        each.ariaLabel || [...(each.labels || [])].map((label) => label.innerText).join(" ") || each.innerText
            || each.querySelector("img")?.alt || ""])"""
