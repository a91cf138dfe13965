"""Serves the page of a run that is watched, to browsers on this machine alone."""

import errno
import json
import re
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from ctm_rl.agents.report.watch.frame import REPORT, STATE, render_frame
from ctm_rl.agents.report.watch.watched import Watched, describe_state
from ctm_rl.errors import UserError

LOOPBACK = "127.0.0.1"
HOST = re.compile(rf"({re.escape(LOOPBACK)}|localhost)(:\d+)?", re.IGNORECASE)
"""Names of this machine under which the page is shown, with any port, which a tunnel may change. Another name in a
request is that of a page in the internet that has been made to point here (DNS rebinding)."""


class _Answer(NamedTuple):
    """The answer to a request."""

    kind: str
    """Its media type."""
    body: bytes
    policy: str
    """Its Content-Security-Policy."""


class PageServer(ThreadingHTTPServer):
    """Serves a page, its frame and its state, on the loopback interface.

    Args:
        watched: the page.
        port: where to listen; 0: any free port.
        every: seconds between two questions of the frame.

    Raises:
        UserError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, watched: Watched, port: int, every: float) -> None:
        self._watched = watched
        self._frame, self._policy = render_frame(watched.run.resolve().name, every)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise UserError(f"--port {port} {reason}; name another one, or leave it out for any free one.") from error

    def server_bind(self) -> None:
        """Binds the socket, without asking for this machine's name, which may wait for a network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over browsers that have gone away in the middle of a request."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def answer(self, path: str) -> _Answer | None:
        """The answer to a request for a path; ``None``: there is nothing."""
        current = self._watched.current
        if path == "/":
            return _Answer("text/html; charset=utf-8", self._frame.encode(), self._policy)
        if path == STATE:
            text = describe_state(self._watched.run, self._watched.experiment)
            state = {"version": current.version, "text": text}
            return _Answer("application/json", json.dumps(state).encode(), "default-src 'none'")
        if path == REPORT and current.version:
            # what else it may do stands in the page itself
            return _Answer("text/html; charset=utf-8", current.page, "frame-ancestors 'self'")
        return None


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests for the three addresses, and no others."""

    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ctm-rl", ""
    timeout = 30
    """Seconds until a connection that asks nothing is closed."""

    def do_GET(self) -> None:
        """Answers a request."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answers a request without the body."""
        self._answer()

    def _refuse_method(self) -> None:
        """Refuses what would change something."""
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, _text("This address is read by GET."), {"Allow": "GET, HEAD"})
        self.close_connection = True  # what was sent with it is not read

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _answer(self) -> None:
        """Answers what was asked for, if it was asked for under a name of this machine."""
        if not HOST.fullmatch(self.headers.get("Host", "")):
            self._send(HTTPStatus.FORBIDDEN, _text(f"This page is shown as {self.server.address} alone."))
            return
        found = self.server.answer(self.path.partition("?")[0])
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, _text("There is nothing at this address."))
        else:
            self._send(HTTPStatus.OK, found)

    def _send(self, status: HTTPStatus, answer: _Answer, headers: dict[str, str] | None = None) -> None:
        """Sends an answer; a browser that has gone away does not get it."""
        self.send_response(status)
        given = {
            "Content-Type": answer.kind,
            "Content-Length": str(len(answer.body)),
            "Content-Security-Policy": answer.policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in {**given, **(headers or {})}.items():
            self.send_header(name, value)
        try:
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing: requests come every few seconds."""


def _text(text: str) -> _Answer:
    """A line of text."""
    return _Answer("text/plain; charset=utf-8", f"{text}\n".encode(), "default-src 'none'")


@contextmanager
def serving(watched: Watched, port: int, every: float) -> Iterator[PageServer]:
    """Serves a page in a thread of its own as long as the body runs.

    Args:
        watched: the page.
        port: see ``PageServer``.
        every: see ``PageServer``.

    Yields:
        The server.

    Raises:
        UserError: the port cannot be used.
    """
    with PageServer(watched, port, every) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="ctm-rl watch", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def watch(
    watched: Watched, port: int, every: float, announce: Callable[[str], None], stop: threading.Event | None = None
) -> None:
    """Shows a run until it is stopped, by an interrupt of this thread or by an event.

    Args:
        watched: the run.
        port: where to listen; 0: any free port.
        every: seconds between two checks of the run's directory.
        announce: is given the address.
        stop: ends the watching once it is set.

    Raises:
        UserError: the port cannot be used.
    """
    stop = stop or threading.Event()
    with serving(watched, port, every) as server:
        announce(server.address)
        while not stop.is_set():
            if not watched.update() or watched.current.version > 1:
                stop.wait(every)
