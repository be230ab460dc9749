"""Downloads from a real server that breaks off, changes its file, or knows no ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from skdtune.data import download
from skdtune.data.download import fetch
from skdtune.errors import DataError

CONTENT = bytes(range(256)) * 4096
OTHER = CONTENT[::-1]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file; what it does wrong is set by a test."""

    daemon_threads = True
    content, tag = CONTENT, '"one"'
    knows_ranges = True
    #: Bytes of each answer after which the connection breaks, in turn; None for whole answers.
    breaks: list[int | None]
    seen: list[str | None]

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that left."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.seen.append(wanted)
        content, start = self.server.content, 0
        if wanted and self.server.knows_ranges and self.headers["If-Range"] == self.server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        breaks_after = self.server.breaks.pop(0) if self.server.breaks else None
        self.wfile.write(content[start:][:breaks_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.breaks, server.seen = [], []
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole(server: Server, root: Path) -> None:
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert (root / "data.tar").read_bytes() == CONTENT
    assert names(root) == ["data.tar"]
    assert server.seen == [None]


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, root: Path) -> None:
    server.breaks = [100_000, 0, 200_000]
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert (root / "data.tar").read_bytes() == CONTENT
    assert server.seen == [None, "bytes=100000-", "bytes=100000-", "bytes=300000-"]


def test_what_has_arrived_is_kept_for_the_next_time(server: Server, root: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"download failed .*100,000 bytes of it are kept"):
        fetch(server.url, root / "data.tar", md5(CONTENT))
    assert names(root) == ["data.tar.part", "data.tar.part.json"]
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert server.seen[-1] == "bytes=100000-"
    assert names(root) == ["data.tar"]


def test_of_another_version_nothing_is_mixed(server: Server, root: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(DataError):
        fetch(server.url, root / "data.tar", md5(OTHER))
    server.content, server.tag = OTHER, '"two"'
    fetch(server.url, root / "data.tar", md5(OTHER))
    assert server.seen[-1] == "bytes=100000-"
    assert (root / "data.tar").read_bytes() == OTHER


def test_a_server_without_ranges_sends_all_again(server: Server, root: Path) -> None:
    server.knows_ranges, server.breaks = False, [100_000]
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert (root / "data.tar").read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_taken(server: Server, root: Path) -> None:
    (root / "data.tar.part").write_bytes(b"x" * 1000)
    (root / "data.tar.part.json").write_text('{"url": "http://else", "validator": "\\"one\\""}')
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert server.seen == [None]


def test_a_part_that_is_whole_already_is_checked(server: Server, root: Path) -> None:
    (root / "data.tar.part").write_bytes(CONTENT)
    (root / "data.tar.part.json").write_text(
        f'{{"url": "{server.url}", "validator": "\\"one\\""}}'
    )
    fetch(server.url, root / "data.tar", md5(CONTENT))
    assert (root / "data.tar").read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(server: Server, root: Path) -> None:
    with pytest.raises(DataError, match="gave another file"):
        fetch(server.url, root / "data.tar", md5(OTHER))
    assert names(root) == []


def test_a_full_disk_is_told_from_a_broken_connection(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "write_json", full)
    with pytest.raises(DataError, match=r"part cannot be written .*No space left"):
        fetch(server.url, root / "data.tar", md5(CONTENT))
    assert server.seen == [None]


def test_nobody_there_is_one_line(root: Path) -> None:
    with pytest.raises(DataError, match="download failed") as caught:
        fetch("http://127.0.0.1:9/data.tar", root / "data.tar", md5(CONTENT))
    assert "\n" not in str(caught.value)
