"""A page in headless Chromium, by its debugging protocol over a pipe: no package and no port is needed.

Messages are JSON, each ends with a zero byte. Chromium reads them from its descriptor 3, and writes to 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE = 30.0  # seconds for an answer: two processes test at once, on two cores
_FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-sandbox",  # which root has not, and containers seldom
]


class Page:
    """A tab that shows a page.

    Attributes
    ----------
    requests : list of str
        Addresses that the page has asked for, its own first; pictures in the page (``data:``) are not listed.
    problems : list of str
        Errors and warnings that were logged, and exceptions that nothing caught.
    """

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._rest = to, answers, b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.done: dict[str, int] = {}  # how many events of each kind have come
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def forget(self) -> None:
        """Forget what has happened so far."""
        self.requests, self.problems, self.done = [], [], {}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        number = self._send(method, **parameters)
        until = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(until)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def _send(self, method: str, **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = until - time.monotonic()
            ready = select.select([self._answers], [], [], max(0.0, left))[0]
            assert ready, "Chromium does not answer"
            more = os.read(self._answers, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, what: dict[str, Any]) -> None:
        self.done[event] = self.done.get(event, 0) + 1
        if event == "Network.requestWillBeSent" and not what["request"]["url"].startswith("data:"):
            self.requests.append(what["request"]["url"])
        elif event == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.problems.append(what["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(what["exceptionDetails"]))
        elif event == "Page.javascriptDialogOpening":  # whether to leave what is not saved
            self._send("Page.handleJavaScriptDialog", accept=True)
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(what["args"]))

    def wait_for(self, event: str, times: int = 1) -> None:
        """Wait until an event has come so many times."""
        until = time.monotonic() + _PATIENCE
        while self.done.get(event, 0) < times:
            self._next(until)

    def open(self, path: Path) -> None:
        """Show a file, and wait until all of it is there."""
        loaded = self.done.get("Page.loadEventFired", 0)
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired", loaded + 1)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key, such as Tab."""
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Give the window a width in pixels, and the page a scheme of colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, **clip: float) -> bytes:
        """A PNG of the whole page, or of a part: ``x``, ``y``, ``width`` and ``height``."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        part = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1} | clip
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=part)
        return base64.b64decode(found["data"])


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """Start Chromium with a profile in a folder; what pages save goes there, too."""
    assert PROGRAM is not None
    pairs = [os.pipe(), os.pipe()]
    # Away from 3 and 4, which the child gets.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for pair in pairs for end in pair]
    for pair in pairs:
        for end in pair:
            os.close(end)
    read_by_it, to_it, from_it, written_by_it = ends

    # Not by `subprocess`, which would have to fork for this: a process with threads must not.
    process = os.posix_spawn(
        PROGRAM,
        [PROGRAM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        os.environ,
        file_actions=[
            *((os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)),
            (os.POSIX_SPAWN_DUP2, read_by_it, 3),
            (os.POSIX_SPAWN_DUP2, written_by_it, 4),
        ],
        setpgroup=0,
    )
    os.close(read_by_it)
    os.close(written_by_it)
    try:
        opened = Page(to_it, from_it)
        saving = {"behavior": "allow", "downloadPath": str(folder)}
        opened.call("Browser.setDownloadBehavior", **saving)
        yield opened
    finally:
        os.close(to_it)  # it ends where its pipe does
        os.close(from_it)
        _end(process)


def _end(process: int) -> None:
    """Wait for the end of a process, and end it if it takes too long."""
    until = time.monotonic() + _PATIENCE
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return
        time.sleep(0.02)
