"""The door of the dashboard, in front of an application that says what came through."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from skdtune.errors import InputError
from skdtune.views.dashboard.artifacts import attachment
from skdtune.views.dashboard.door import Door, hosts_of, is_loopback, read_allowed_host

LOOPBACK = hosts_of(["127.0.0.1"], 8080, [])
HOST = "127.0.0.1:8080"
CROSS = {"Sec-Fetch-Site": "cross-site"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
JSON = {"Content-Type": "application/json", "Content-Length": "2"}


def came_through(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Access-Control-Allow-Origin", "*"), ("X-Own", "kept")])
    return [b"through"]


def ask(door: Door, method: str = "GET", path: str = "/api/studies", **headers: str) -> Any:
    """Return status, headers and body that a request gets."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": HOST}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO(b"{}")
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key.startswith("CONTENT_") else f"HTTP_{key}"] = value
    told: list[Any] = []
    body = b"".join(door(environ, lambda *given: told.append(given)))
    ((status, answered),) = told
    return int(status[:3]), dict(answered), body


def status(door: Door, method: str, path: str, headers: dict[str, str]) -> int:
    found: int = ask(door, method, path, **headers)[0]
    return found


# Hosts


@pytest.mark.parametrize(
    ("names", "extra", "known", "unknown"),
    [
        (
            ["127.0.0.1"],
            [],
            ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"],
            ["127.0.0.1", "localhost", "127.0.0.1:80", "evil.example", "evil.example:8080", "",
             "127.0.0.1:8080,evil.example", "localhost.:8080", "127.0.0.1:8080/", "[::2]:8080"],
        ),
        (["box.lan", "192.0.2.7"], [], ["box.lan:8080", "192.0.2.7:8080"], ["localhost:8080"]),
        (["::1"], [], ["[0:0::1]:8080", "localhost:8080"], ["::1:8080", "[::1]"]),
        (
            ["127.0.0.1"],
            ["dash.example", "tunnel.example:9000", "::2", "[::3]:1"],
            ["dash.example", "dash.example:8443", "tunnel.example:9000", "[::2]:5", "[::3]:1"],
            ["tunnel.example", "tunnel.example:8080", "a.dash.example", "[::3]:2"],
        ),
    ],
)  # fmt: skip
def test_it_is_known_by_what_it_is_bound_to_and_what_it_is_told(
    names: list[str], extra: list[str], known: list[str], unknown: list[str]
) -> None:
    hosts = hosts_of(names, 8080, extra)
    assert [host for host in known if host not in hosts] == []
    assert [host for host in unknown if host in hosts] == []


def test_a_browser_leaves_the_usual_port_out() -> None:
    assert "localhost" in hosts_of(["127.0.0.1"], 80, [])
    assert "dash.example" in hosts_of(["127.0.0.1"], 8080, ["dash.example:443"])


@pytest.mark.parametrize(
    "text", ["", "*", "http://x", "x/", "x:", "x:0", "x:y", "a b", "[x]", "a:b:c", "u@x"]
)
def test_what_is_no_host_cannot_be_allowed(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST or HOST:PORT"):
        read_allowed_host(text)


def test_only_loopback_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(
        map(is_loopback, ["0.0.0.0", "::", "192.0.2.7", "box", "localhost.evil.example"])
    )


# Pages of others


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        CROSS,
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none, cross-site"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "ftp://127.0.0.1:8080"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "none", "Origin": "http://evil.example"},
    ],
    ids=str,
)
def test_what_another_page_asks_for_is_refused(method: str, headers: dict[str, str]) -> None:
    door = Door(came_through, LOOPBACK, allow_write=True)
    for path in ("/", "/dashboard/", "/api/studies", "/artifacts/1/2", "/static/bundle.js"):
        assert status(door, method, path, headers | JSON) == 403


@pytest.mark.parametrize("path", ["/", "/dashboard", "/dashboard/studies/1"])
def test_a_link_to_its_page_is_followed_and_to_no_data(path: str) -> None:
    door = Door(came_through, LOOPBACK, allow_write=True)
    assert status(door, "GET", path, CROSS | LINK) == 200
    assert status(door, "POST", path, CROSS | LINK) == 403
    assert status(door, "GET", path, CROSS | LINK | {"Sec-Fetch-Dest": "iframe"}) == 403
    for data in ("/api/studies", "/artifacts/1/2", "/csv/1", "/dashboards"):
        assert status(door, "GET", data, CROSS | LINK) == 403


# Writing


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_it_is_read_only_unless_it_is_told(method: str) -> None:
    code, _, body = ask(Door(came_through, LOOPBACK), method, **JSON)
    assert code == 403
    assert "--allow-write" in json.loads(body)["reason"]
    own = JSON | {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    for headers in (JSON, own, own | {"Content-Type": "application/json; charset=utf-8"}):
        assert (
            status(Door(came_through, LOOPBACK, allow_write=True), method, "/api", headers) == 200
        )


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x=json"]
)
def test_what_a_form_can_send_is_no_writing(kind: str) -> None:
    door = Door(came_through, LOOPBACK, allow_write=True)
    for length in ({"Content-Length": "2"}, {"Transfer-Encoding": "chunked"}):
        assert status(door, "POST", "/api/studies", {"Content-Type": kind} | length) == 415
    assert status(door, "DELETE", "/api/studies/1", {"Content-Type": kind}) == 200


# Answers


def test_every_answer_is_closed_to_other_origins() -> None:
    door = Door(came_through, LOOPBACK, password="secret")
    known = {"Authorization": "Basic OnNlY3JldA=="}
    for headers, code in ((known, 200), ({}, 401), (CROSS, 403), ({"Host": "evil.example"}, 421)):
        found, answered, _ = ask(door, **headers)
        assert found == code
        assert "Access-Control-Allow-Origin" not in answered
        assert answered["X-Content-Type-Options"] == "nosniff"
        assert answered["X-Frame-Options"] == "DENY"
        assert answered["Referrer-Policy"] == "no-referrer"
        assert answered["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "sandbox" in answered["Content-Security-Policy"]
    assert ask(door, **known)[1]["X-Own"] == "kept"
    page = ask(door, "GET", "/dashboard/studies/1", **known)[1]["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self' " in page
    assert "frame-ancestors 'none'" in page
    assert "sandbox" not in page


@pytest.mark.parametrize("length", ["2", "-1", "x", "99999999999"])
def test_a_refused_request_may_say_anything_of_its_length(length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert status(Door(came_through, LOOPBACK), "POST", "/api/studies", headers) == 403
    assert ask(Door(came_through, LOOPBACK), "HEAD", "/x", Host="evil.example")[2] == b""


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("net.safetensors", "net.safetensors"),
        ("../../.bashrc", "bashrc"),
        ("C:\\a\\b.exe", "b.exe"),
        ('x"; filename="y', "x__ filename=_y".replace("=", "_")),
        ("a\r\nSet-Cookie: b=c", "aSet-Cookie_ b_c"),
        ("\udcff.png", "_.png"),
        ("l" * 300, "l" * 150),
    ],
)
def test_a_file_name_stays_a_file_name(name: str, plain: str) -> None:
    header = attachment(name)
    assert header.startswith(f"attachment; filename=\"{plain}\"; filename*=UTF-8''")
    header.encode("ascii")
    assert header.isprintable()


@pytest.mark.parametrize("name", ["", "..", "/", "\x00"])
def test_without_a_name_it_is_an_attachment_nevertheless(name: str) -> None:
    assert attachment(name) == "attachment"
