"""The dashboard as a process: over HTTP, and in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "korrekt:Pferd-ä"

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., Any]
RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., "Dashboard"]


@dataclass
class Answer:
    """What a request got back."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Dashboard:
    """A running dashboard."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, path: str, *, method: str = "GET", password: str | None = None) -> Answer:
        request = urllib.request.Request(self.url(path), method=method)
        if password is not None:
            credentials = base64.b64encode(f"anyone:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        # No proxy of the environment may come between.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                return Answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())

    def studies(self) -> list[str]:
        listed = self.ask("/api/studies").json()["study_summaries"]
        return [study["study_name"] for study in listed]


@pytest.fixture(scope="module")
def serve(start: Start, eventually: Eventually) -> Serve:
    """Start a dashboard on a free port and wait until it says where it is."""

    def serve(home: Path, *arguments: str, **env: str) -> Dashboard:
        log = home.with_name(f"dashboard-{uuid.uuid4().hex}.log")
        environment = {"SKDTUNE_HOME": str(home), "SKDTUNE_STORAGE": None, **env}
        process = start("dashboard", "--port", "0", *arguments, log=log, env=environment)
        found = eventually(
            lambda: re.search(r"http://\S+:(\d+)/dashboard/", log.read_text()),
            process=process,
            log=log,
        )
        return Dashboard(process, int(found[1]), log)

    return serve


@pytest.fixture(scope="module")
def finished_home(tmp_path_factory: pytest.TempPathFactory, tiny_study: Path) -> Path:
    """Make a home with a study that a real worker has finished."""
    home = tmp_path_factory.mktemp("finished") / "home"
    home.mkdir()
    environment = {**os.environ, "SKDTUNE_HOME": str(home)}
    environment.pop("SKDTUNE_STORAGE", None)
    for command in (["create-study", str(tiny_study)], ["worker", "tiny", "--device", "cpu"]):
        ran = subprocess.run(
            [sys.executable, "-m", "skdtune", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    return home


@pytest.fixture(scope="module")
def dashboard(serve: Serve, finished_home: Path) -> Dashboard:
    """Serve the finished study on the default address, without a password."""
    return serve(finished_home)


@pytest.fixture(scope="module")
def guarded(serve: Serve, finished_home: Path) -> Dashboard:
    """Serve the finished study to the network, behind a password."""
    return serve(finished_home, "--host", "0.0.0.0", SKDTUNE_DASHBOARD_PASSWORD=PASSWORD)


# An empty home


def test_empty_home_shows_an_empty_list_of_studies(serve: Serve, tmp_path: Path) -> None:
    home = tmp_path / "not there yet"

    dashboard = serve(home)

    assert dashboard.studies() == []
    page = dashboard.ask("/dashboard/")
    assert page.status == 200
    assert b"<html" in page.body


# A finished study


def study_of(dashboard: Dashboard) -> Any:
    answer = dashboard.ask("/api/studies/1")
    assert answer.status == 200
    return answer.json()


def test_finished_study_is_listed(dashboard: Dashboard) -> None:
    assert "tiny" in dashboard.studies()


def test_trials_come_with_state_value_and_curve(dashboard: Dashboard) -> None:
    study = study_of(dashboard)

    assert study["directions"] == ["maximize"]
    states = [trial["state"] for trial in study["trials"]]
    assert states[:2] == ["Complete", "Pruned"]
    assert len(states) == 4
    first, second = study["trials"][:2]
    assert [point["step"] for point in first["intermediate_values"]] == [0, 1, 2]
    assert [point["step"] for point in second["intermediate_values"]] == [0]
    assert first["values"] == [first["intermediate_values"][-1]["value"]]
    assert study["best_trials"][0]["values"][0] >= first["values"][0]


def test_objective_has_its_name(dashboard: Dashboard) -> None:
    assert study_of(dashboard)["objective_names"] == ["validation accuracy"]


def test_note_says_what_the_study_searches(dashboard: Dashboard, tiny_study: Path) -> None:
    from skdtune.describe.presets import load_spec

    note = study_of(dashboard)["note"]["body"]

    assert len(note) > 2045, "it must need more than one attribute of the storage"
    assert note == load_spec(str(tiny_study)).note()
    assert "digits, a narrow network: plain cross-entropy" in note
    assert "after 3 epochs" in note
    assert "4 trials, sampler `tpe`, pruner `median`, at most 12 epochs" in note
    row = next(line for line in note.splitlines() if line.startswith("| `optimizer.lr`"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["`optimizer.lr`", "1e-07 to 0.5, log", "0.1"]
    assert cells[3].startswith("too slow / too fast")
    assert len(cells) == 4, "a bar in a reason must not open another cell"


def test_artifact_of_a_study_is_served(
    dashboard: Dashboard, finished_home: Path, tmp_path: Path
) -> None:
    from optuna.artifacts import FileSystemArtifactStore, upload_artifact

    from skdtune.queue.stored_study import load_study

    content = b"\x00 not text \xff"
    file = tmp_path / "curve.bin"
    file.write_bytes(content)
    stored = load_study("tiny", storage=f"sqlite:///{finished_home / 'skdtune.db'}")
    artifact_id = upload_artifact(
        artifact_store=FileSystemArtifactStore(str(finished_home / "artifacts")),
        study_or_trial=stored.study,
        file_path=str(file),
    )
    stored.engine.dispose()

    assert dashboard.ask("/api/meta").json()["artifact_is_available"] is True
    listed = study_of(dashboard)["artifacts"]
    assert [(a["artifact_id"], a["filename"]) for a in listed] == [(artifact_id, "curve.bin")]
    assert dashboard.ask(f"/artifacts/1/{artifact_id}").body == content


def test_network_of_the_best_trial_is_listed_and_downloaded(
    dashboard: Dashboard, finished_home: Path
) -> None:
    from skdtune.analysis.study_results import results

    best = results("tiny", storage=f"sqlite:///{finished_home / 'skdtune.db'}").best
    assert best is not None
    # All trials, as the page of the study asks for them.
    trials = dashboard.ask("/api/studies/1?after=0").json()["trials"]
    (trial,) = [trial for trial in trials if trial["number"] == best.number]
    (artifact,) = trial["artifacts"]
    assert artifact["filename"] == f"tiny-trial-{best.number:05d}.safetensors"

    answer = dashboard.ask(f"/artifacts/1/{trial['trial_id']}/{artifact['artifact_id']}")

    assert answer.status == 200
    attributes = {a["key"]: a["value"] for a in trial["user_attrs"]}
    assert hashlib.sha256(answer.body).hexdigest() == attributes["network_sha256"]


def test_study_created_meanwhile_appears(
    dashboard: Dashboard, run_cli: RunCli, finished_home: Path
) -> None:
    created = run_cli("--home", str(finished_home), "create-study", "digits-ls")

    assert created.returncode == 0, created.stderr
    assert sorted(dashboard.studies()) == ["digits-ls", "tiny"]


# Who may look


def is_reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")
def test_by_default_only_this_machine_reaches_it(dashboard: Dashboard, guarded: Dashboard) -> None:
    assert is_reachable("127.0.0.1", dashboard.port)
    assert not is_reachable("127.0.0.2", dashboard.port)
    assert is_reachable("127.0.0.2", guarded.port), "--host 0.0.0.0 means every address"


@pytest.mark.parametrize("given", [None, "", "korrekt", PASSWORD + "x", PASSWORD.upper()])
@pytest.mark.parametrize(
    "path", ["/", "/dashboard/", "/api/studies", "/api/studies/1", "/static/bundle.js"]
)
def test_nothing_is_served_without_the_password(
    guarded: Dashboard, path: str, given: str | None
) -> None:
    answer = guarded.ask(path, password=given)

    assert (answer.status, answer.body) == (401, b"password required\n")


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ????", "Basic bm9jb2xvbg==", f"Bearer {PASSWORD.encode().hex()}"]
)
def test_malformed_credentials_are_refused(guarded: Dashboard, header: str) -> None:
    request = urllib.request.Request(guarded.url("/api/studies"))
    request.add_header("Authorization", header)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    with pytest.raises(urllib.error.HTTPError) as refused, opener.open(request, timeout=30):
        pass

    assert refused.value.code == 401
    assert refused.value.headers["WWW-Authenticate"].startswith("Basic ")
    refused.value.close()


def test_the_password_opens_everything(guarded: Dashboard) -> None:
    assert guarded.ask("/dashboard/", password=PASSWORD).status == 200
    listed = guarded.ask("/api/studies", password=PASSWORD).json()["study_summaries"]
    assert "tiny" in [study["study_name"] for study in listed]


@pytest.mark.parametrize("given", [None, "wrong"])
def test_without_the_password_nothing_can_be_deleted(
    guarded: Dashboard, given: str | None
) -> None:
    assert guarded.ask("/api/studies/1", method="DELETE", password=given).status == 401

    still = guarded.ask("/api/studies/1", password=PASSWORD)
    assert still.status == 200
    assert len(still.json()["trials"]) == 4


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_it_can_listen_on_the_ipv6_loopback(serve: Serve, skdtune_home: Path) -> None:
    dashboard = serve(skdtune_home, "--host", "::1")

    assert f"http://[::1]:{dashboard.port}/dashboard/" in dashboard.log.read_text()
    assert is_reachable("::1", dashboard.port)
    assert not is_reachable("127.0.0.1", dashboard.port)


# Its life as a process


def test_it_says_what_it_serves_and_where(dashboard: Dashboard, finished_home: Path) -> None:
    assert dashboard.log.read_text().splitlines()[:2] == [
        f"dashboard of sqlite:///{finished_home / 'skdtune.db'}",
        f"http://127.0.0.1:{dashboard.port}/dashboard/  (Ctrl-C ends it)",
    ]


def test_port_in_use_is_one_line_and_exit_code_2(dashboard: Dashboard, run_cli: RunCli) -> None:
    ended = run_cli("dashboard", "--port", str(dashboard.port))

    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"skdtune: cannot listen on 127.0.0.1:{dashboard.port}: ")
    assert "--port" in line


def test_open_to_the_network_without_a_password_is_warned_of(
    serve: Serve, skdtune_home: Path
) -> None:
    log = serve(skdtune_home, "--host", "0.0.0.0").log.read_text()

    assert log.startswith("warning: SKDTUNE_DASHBOARD_PASSWORD is not set")


def test_a_password_is_in_no_log(guarded: Dashboard) -> None:
    log = guarded.log.read_text()

    assert "/dashboard/" in log
    assert "warning" not in log
    assert PASSWORD not in log


def test_ctrl_c_ends_it_without_a_traceback(serve: Serve, skdtune_home: Path) -> None:
    dashboard = serve(skdtune_home)
    # Also after visitors that left in the middle of what they said.
    for said in (b"", b"GET /api/studies HTTP/1.1\r\n", b"GET /dashboard/ HTTP/1.0\r\n\r\n"):
        reset_after(dashboard.port, said)
    assert dashboard.ask("/dashboard/").status == 200

    dashboard.process.send_signal(signal.SIGINT)

    assert dashboard.process.wait(timeout=30) == 130
    log = dashboard.log.read_text()
    assert "Traceback" not in log
    assert log.endswith("skdtune: interrupted\n")


def reset_after(port: int, said: bytes) -> None:
    """Say something and reset the connection, as a browser does with a tab that is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as visitor:
        visitor.sendall(said)
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_study_on_postgresql_is_shown(
    serve: Serve, run_cli: RunCli, postgres_url: str, tmp_path: Path
) -> None:
    dashboard = serve(tmp_path / "home", "--storage", postgres_url)
    assert dashboard.studies() == []
    created = run_cli("create-study", "digits-drg-dsr", "--storage", postgres_url)

    assert created.returncode == 0, created.stderr
    assert dashboard.studies() == ["digits-drg-dsr"]
    study = study_of(dashboard)
    assert len(study["trials"]) == 24
    assert {trial["state"] for trial in study["trials"]} == {"Waiting"}
    assert study["note"]["body"].startswith("## digits-drg-dsr\n")


# In a browser


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")


@pytest.fixture
def page_text(chromium: str, tmp_path: Path) -> Callable[[str], str]:
    """Load a page in a headless browser and return the text that a person sees."""

    def page_text(url: str) -> str:
        loaded = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-proxy-server",
                f"--user-data-dir={tmp_path / 'chromium'}",
                "--virtual-time-budget=20000",
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr
        without_code = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", loaded.stdout)
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", without_code)).split())

    return page_text


@pytest.mark.browser
def test_browser_shows_the_study(dashboard: Dashboard, page_text: Callable[[str], str]) -> None:
    text = page_text(dashboard.url("/dashboard/studies/1"))

    assert "tiny (id=1)" in text
    assert "validation accuracy" in text
    assert "Best Trial" in text


@pytest.mark.browser
def test_browser_shows_the_note(dashboard: Dashboard, page_text: Callable[[str], str]) -> None:
    text = page_text(dashboard.url("/dashboard/studies/1/note"))

    assert "tiny (id=1)" in text
    assert "digits, a narrow network: plain cross-entropy" in text
    # Drawn as a table, not shown as its source.
    assert "parameter range trial 0 why optimizer.lr 1e-07 to 0.5, log 0.1 too slow" in text
