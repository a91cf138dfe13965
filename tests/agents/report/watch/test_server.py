"""The server of a page that is watched: on the loopback interface, under its own names, for reading alone."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from answering_runs import small_experiment, write_run
from browser import browser

from ctm_rl.agents.report.document import Code, Document, Section
from ctm_rl.agents.report.page import render_page
from ctm_rl.agents.report.report import ReportOptions
from ctm_rl.agents.report.watch.server import PageServer, serving, watch
from ctm_rl.agents.report.watch.watched import Snapshot, Watched
from ctm_rl.errors import UserError

EVERY = 0.5


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run whose page is made by hand."""
    run = write_run(tmp_path_factory.mktemp("runs") / "a run", small_experiment("parity", kind="mlp"), iterations=())
    return Watched(run, ReportOptions())


@pytest.fixture
def server(watched: Watched) -> Iterator[PageServer]:
    """Serves it."""
    watched.current = Snapshot(3, b"<!DOCTYPE html>the page")
    with serving(watched, 0, EVERY) as found:
        yield found
    assert "ctm-rl watch" not in {thread.name for thread in threading.enumerate()}


def ask(
    server: PageServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, str]:
    """Asks the server; returns the answer and its text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_it_listens_on_the_loopback_interface_alone(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_it_has_three_addresses(server: PageServer, watched: Watched) -> None:
    answer, frame = ask(server, "/")
    assert answer.status == 200
    assert "<title>a run</title>" in frame
    policy = str(answer.headers["Content-Security-Policy"])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    answer, text = ask(server, "/state")
    assert json.loads(text)["version"] == 3
    answer, text = ask(server, "/report?3")
    assert text == "<!DOCTYPE html>the page"
    assert answer.headers["Cache-Control"] == "no-store"
    answer, text = ask(server, "/report", "HEAD")
    assert (answer.status, answer.headers["Content-Length"], text) == (200, "23", "")


@pytest.mark.parametrize(
    "path", ["/config.json", "/../config.json", "//x", "/report/", "/state/..", "/etc/passwd", "*"]
)
def test_it_serves_no_files(server: PageServer, path: str) -> None:
    answer, text = ask(server, path)
    assert (answer.status, text) == (404, "There is nothing at this address.\n")


def test_a_page_that_is_not_made_yet_is_not_found(server: PageServer, watched: Watched) -> None:
    watched.current = Snapshot(0, b"")
    assert ask(server, "/report")[0].status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:9999", 200),  # through a tunnel
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(server: PageServer, host: str, status: int) -> None:
    answer, text = ask(server, "/state", host=host)
    assert answer.status == status
    assert ("version" in text) == (status == 200)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_answered(server: PageServer, method: str) -> None:
    answer, text = ask(server, "/state", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "version" not in text


def test_a_port_in_use_is_one_line(server: PageServer, watched: Watched) -> None:
    with pytest.raises(UserError, match=rf"--port {server.server_port} is in use; name another one"):
        watch(watched, server.server_port, EVERY, lambda _: None)


def test_watching_goes_on_until_it_is_stopped(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, seen = threading.Event(), list[str]()
    updates = []

    def update() -> bool:
        updates.append(len(updates))
        if len(updates) == 3:
            stop.set()
        return False

    monkeypatch.setattr(watched, "update", update)
    watch(watched, 0, 0.01, seen.append, stop)
    assert len(updates) == 3
    assert seen[0].startswith("http://127.0.0.1:")

    def interrupted() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(watched, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watch(watched, 0, 0.01, seen.append)
    assert "ctm-rl watch" not in {thread.name for thread in threading.enumerate()}


def page_of(version: int) -> Snapshot:
    """A long page whose figures above the place where one reads have another height in each version."""
    figures = [
        Code(title=f"figure {index}", text="line\n" * (20 + (10 * version if index < 5 else 0))) for index in range(20)
    ]
    document = Document(title=f"version {version}", sections=[Section(name="s", title="S", figures=figures)])
    return Snapshot(version, render_page(document).encode())


def test_a_browser_shows_new_pages_at_the_same_place(watched: Watched, tmp_path: Path) -> None:
    watched.current = page_of(1)
    with serving(watched, 0, EVERY) as server, browser() as page:
        inside = "document.querySelector('iframe').contentDocument"
        page.open(server.address, "document.documentElement.dataset.version === '1'")
        figure = f"[...{inside}.querySelectorAll('figure')].find((one) => one.textContent.includes('figure 12'))"
        page.run(f"{figure}.scrollIntoView({{behavior: 'instant', block: 'start'}})")
        page.run(f"{inside}.querySelector('.theme').click()")
        theme = page.run(f"return {inside}.documentElement.dataset.theme")
        before = page.run(f"return {figure}.getBoundingClientRect().top")
        watched.current = page_of(2)
        page.wait("document.documentElement.dataset.version === '2'")
        assert page.run(f"return {inside}.querySelector('h1').textContent") == "version 2"
        assert page.run("return document.querySelectorAll('iframe').length") == 1
        assert page.run(f"return {figure}.getBoundingClientRect().top") == pytest.approx(before, abs=3)
        assert page.run(f"return {inside}.defaultView.scrollY") > 1000
        assert page.run(f"return {inside}.documentElement.dataset.theme") == theme
        assert "no iteration yet" in page.run("return document.getElementById('state').textContent")
        assert page.console() == []
        own = {server.address, f"{server.address}state", f"{server.address}report?1", f"{server.address}report?2"}
        assert set(page.requests()) <= own
