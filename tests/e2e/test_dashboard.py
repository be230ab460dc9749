"""The dashboard as a process: over HTTP, and in a real browser."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e.browser import Browser, find_chromium
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState

from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.stored_study import load_study

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
    headers: Message

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

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        password: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        request = urllib.request.Request(self.url(path), body, dict(headers or {}), method=method)
        if password is not None:
            credentials = base64.b64encode(f"anyone:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        # No proxy of the environment may come between.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                return Answer(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), error.headers)

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
    """Make a home with a study that a real worker has finished, and its final evaluation."""
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
    url = f"sqlite:///{home / 'skdtune.db'}"
    with contextlib.closing(
        load_study(create_evaluation("tiny", storage=url), storage=url)
    ) as test:
        for trial in test.study.get_trials()[:3]:
            test.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            test.storage.set_trial_state_values(
                trial._trial_id, TrialState.COMPLETE, [0.5 + trial.number / 10]
            )
    return home


@pytest.fixture(scope="module")
def dashboard(serve: Serve, finished_home: Path) -> Dashboard:
    """Serve the finished study on the default address, without a password."""
    return serve(finished_home)


@pytest.fixture(scope="module")
def writable(serve: Serve, finished_home: Path) -> Dashboard:
    """Serve the finished study to whoever may write."""
    return serve(finished_home, "--allow-write", "--allowed-host", "proxy.example")


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
    # The second was queued by hand, and is never pruned, weak as it is.
    assert states[:2] == ["Complete", "Complete"]
    assert len(states) == 4
    first, second = study["trials"][:2]
    assert [point["step"] for point in first["intermediate_values"]] == [0, 1, 2]
    assert [point["step"] for point in second["intermediate_values"]] == [0, 1, 2]
    assert first["values"] == [first["intermediate_values"][-1]["value"]]
    assert study["best_trials"][0]["values"][0] >= first["values"][0]


def test_objective_has_its_name(dashboard: Dashboard) -> None:
    assert study_of(dashboard)["objective_names"] == ["validation_accuracy"]


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


def upload(home: Path, file: Path) -> str:
    """Hang a file on the study `tiny`."""
    with contextlib.closing(
        load_study("tiny", storage=f"sqlite:///{home / 'skdtune.db'}")
    ) as stored:
        return upload_artifact(
            artifact_store=FileSystemArtifactStore(str(home / "artifacts")),
            study_or_trial=stored.study,
            file_path=str(file),
        )


def test_artifact_of_a_study_is_served(
    dashboard: Dashboard, finished_home: Path, tmp_path: Path
) -> None:
    content = b"\x00 not text \xff"
    file = tmp_path / "curve.bin"
    file.write_bytes(content)
    artifact_id = upload(finished_home, file)

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
    assert sorted(dashboard.studies()) == ["digits-ls", "tiny", "tiny.test"]


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

    assert answer.status == 401
    assert answer.body in (b"password required\n", b'{"reason": "password required"}')
    assert answer.headers["X-Frame-Options"] == "DENY"


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
    with_it = guarded.ask("/api/studies/1", method="DELETE", password=PASSWORD)
    assert with_it.status == 403, "it is read-only for everybody"


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
    # Nor may the proxy of an earlier test in this process: urlopen keeps the first one it saw.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://[::1]:{dashboard.port}/api/studies", timeout=30) as found:
        assert json.load(found) == {"study_summaries": []}
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


def test_a_password_is_in_no_log(guarded: Dashboard) -> None:
    log = guarded.log.read_text()

    assert "/dashboard/" in log
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


# A final evaluation


def test_of_a_final_evaluation_no_trial_is_the_best(dashboard: Dashboard) -> None:
    study = dashboard.ask("/api/studies/2").json()
    assert study["name"] == "tiny.test"
    assert [trial["state"] for trial in study["trials"]][:4] == ["Complete"] * 3 + ["Waiting"]
    assert study["best_trials"] == []
    assert study["objective_names"] == ["test_accuracy"]
    assert "the best value says nothing, the mean over the seeds does" in study["note"]["body"]

    importances = dashboard.ask("/api/studies/2/param_importances")
    assert (importances.status, importances.json()) == (200, {"param_importances": [[]]})
    assert dashboard.ask("/api/studies/1/param_importances").status == 200
    assert dashboard.ask("/api/studies/99/param_importances").status == 404
    assert dashboard.ask("/api/studies/99").status == 404


# Who asks, and for what


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1"]
)
def test_under_another_host_nothing_is_answered(
    dashboard: Dashboard, writable: Dashboard, host: str, method: str
) -> None:
    for asked in (dashboard, writable):
        headers = {"Host": host.format(port=asked.port)}
        for path in ("/api/studies/1", "/dashboard/", "/artifacts/1/0"):
            answer = asked.ask(path, method=method, headers=headers)
            assert answer.status == 421
            assert b"tiny" not in answer.body
    assert b"--allowed-host HOST" in dashboard.ask("/", headers={"Host": "x.example"}).body
    assert study_of(writable)["name"] == "tiny"


def test_a_proxy_passes_on_the_host_that_it_is_known_by(writable: Dashboard) -> None:
    proxied = {"Host": "proxy.example", "Content-Type": "application/json"}
    put = "/api/studies/99/note"
    assert writable.ask("/api/studies", headers=proxied).status == 200
    theirs = proxied | {"Origin": "https://evil.example"}
    assert writable.ask(put, method="PUT", headers=theirs, body=b"{}").status == 403
    own = proxied | {"Origin": "https://proxy.example"}
    answer = writable.ask(put, method="PUT", headers=own, body=b"{}")
    assert answer.json() == {"reason": "Invalid request."}, "it came to the dashboard"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_unless_it_may_write_it_is_there_to_look_at(dashboard: Dashboard, method: str) -> None:
    for path in ("/api/studies", "/api/studies/1", "/api/studies/1/note", "/api/artifacts/1"):
        answer = dashboard.ask(path, method=method, headers={"Content-Type": "application/json"})
        assert answer.status == 403
        assert answer.json()["reason"] == (
            "this dashboard is read-only: `skdtune dashboard --allow-write` lets it write"
        )
    assert "tiny" in dashboard.studies()
    assert b"Read-only" in dashboard.ask("/dashboard/studies/1").body


def test_it_renames_no_study_into_a_copy_without_its_spec(writable: Dashboard) -> None:
    headers = {"Content-Type": "application/json"}
    renamed = writable.ask("/api/studies/1/rename", method="POST", headers=headers)
    assert renamed.status == 409
    assert "skdtune rename" in renamed.json()["reason"]
    assert b"Read-only" not in writable.ask("/dashboard/studies/1").body


def test_an_artifact_is_a_file_to_keep(
    writable: Dashboard, finished_home: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'a "b";\u00e4.html'
    file.write_text("<script>document.title = 'taken'</script>")
    path = f"/artifacts/1/{upload(finished_home, file)}"

    headers = writable.ask(path).headers

    assert headers["Content-Disposition"] == (
        "attachment; filename=\"a _b___.html\"; filename*=UTF-8''a%20%22b%22%3B%C3%A4.html"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in headers if name.lower().startswith("access-control-")]


# In a browser

STRANGER = "evil.example"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser that a stranger told that its name means this machine."""
    browser = Browser(find_chromium(), tmp_path_factory.mktemp("chromium"), [STRANGER])
    yield browser
    browser.close()


def see(browser: Browser, url: str, *texts: str) -> str:
    """Open a page, wait for texts on it, and require that nothing on it was refused."""
    browser.open(url)
    for text in texts:
        browser.until(f"document.body.innerText.includes({json.dumps(text)})")
    # What a software renderer says of its own speed is no complaint of the page.
    assert [one for one in browser.complaints() if '"source": "rendering"' not in one] == []
    seen: str = browser.run("document.body.innerText")
    return seen


@pytest.mark.browser
def test_browser_shows_the_study(dashboard: Dashboard, browser: Browser) -> None:
    see(browser, dashboard.url("/dashboard/"), "tiny.test", "Read-only")
    study = dashboard.url("/dashboard/studies/1")
    page = see(browser, study, "tiny (id=1)", "validation_accuracy", "Best Trial")
    assert "skdtune:spec_hash" in page
    assert "skdtune:spec\t" not in page
    browser.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 4")
    see(browser, f"{study}/analytics", "Slice", "Cumulative Probability")
    see(browser, f"{study}/trials", "4 Trials", "tiny-trial-0000")
    # Drawn by WebGL, which asks the most of a policy.
    see(browser, f"{study}/smartSelection", "Parallel Coordinate", "Param optimizer.lr")
    browser.until("document.querySelectorAll('.js-plotly-plot canvas').length >= 3")
    assert "WebGL is not supported" not in browser.run("document.body.innerText")
    # Drawn as a table, not shown as its source.
    note = see(browser, f"{study}/note", "digits, a narrow network: plain cross-entropy")
    shown = " ".join(note.split())
    assert "parameter range trial 0 why optimizer.lr 1e-07 to 0.5, log 0.1 too slow" in shown


@pytest.mark.browser
def test_browser_shows_a_final_evaluation_without_an_error(
    dashboard: Dashboard, browser: Browser
) -> None:
    study = dashboard.url("/dashboard/studies/2")
    page = see(browser, study, "tiny.test (id=2)", "test_accuracy", "Hyperparameter Importance")
    assert "Failed to" not in page
    assert "Best Trial (" not in page
    assert "Best Trial\n" not in see(browser, f"{study}/trials", "5 Trials", "Complete")


#: What a page may try against another address; returns what it read, and what was drawn.
ATTACK = """(async (base) => {
    const read = [];
    const get = (path, init) => fetch(base + path, init).then(async (answer) => {
        if (answer.type !== "opaque") read.push(await answer.text());
    }).catch(() => {});
    const json = {"Content-Type": "application/json"};
    const text = {"Content-Type": "text/plain"};
    const body = JSON.stringify({study_name: "theirs", directions: ["maximize"]});
    await get("/api/studies");
    await get("ARTIFACT");
    await get("/api/studies", {mode: "no-cors"});
    await get("/api/studies", {method: "POST", headers: json, body});
    await get("/api/studies", {method: "POST", headers: text, body});
    await get("/api/studies", {method: "POST", headers: text, body, mode: "no-cors"});
    await get("/api/studies/1/note", {method: "PUT", headers: json, body: "{}"});
    await get("/api/studies/1", {method: "DELETE"});
    const load = (tag, values) => new Promise((done) => {
        const element = Object.assign(document.createElement(tag), values);
        element.onload = () => { if (tag !== "iframe") read.push(tag); done(); };
        element.onerror = () => done();
        document.body.append(element);
    });
    await load("img", {src: base + "ARTIFACT"});
    await load("script", {src: base + "/static/bundle.js"});
    await load("script", {src: base + "/api/studies"});
    await load("iframe", {src: base + "/dashboard/"});
    await load("iframe", {src: base + "/api/studies", sandbox: "allow-scripts"});
    for (const enctype of ["text/plain", "application/x-www-form-urlencoded"]) {
        const form = Object.assign(document.createElement("form"), {
            method: "POST", enctype, action: base + "/api/studies", target: "hidden",
        });
        const frame = Object.assign(document.createElement("iframe"), {name: "hidden"});
        form.append(Object.assign(document.createElement("input"), {name: body, value: ""}));
        document.body.append(frame, form);
        const sent = new Promise((done) => { frame.onload = done; });
        form.submit();
        await sent;
        frame.remove();
    }
    return read;
})"""


@pytest.mark.browser
def test_a_page_of_somebody_else_reads_nothing_and_changes_nothing(
    writable: Dashboard, browser: Browser, finished_home: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "dot.svg"
    picture.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    artifact = f"/artifacts/1/{upload(finished_home, picture)}"
    before = writable.studies(), study_of(writable)
    with stranger_site() as port:
        # Another port of this machine is somebody else, too.
        for site in (f"http://{STRANGER}:{port}/", f"http://127.0.0.1:{port}/"):
            browser.open(site)
            attack = ATTACK.replace("ARTIFACT", artifact)
            assert browser.run(f"{attack}({json.dumps(writable.url(''))})") == []
            answered = [
                event["params"]["response"]
                for event in browser.events
                if event.get("method") == "Network.responseReceived"
            ]
            ours = [one for one in answered if f":{writable.port}/" in one["url"]]
            assert {one["status"] for one in ours} == {403}
            asked = [url for url in browser.requested() if f":{writable.port}/" in url]
            assert len(asked) >= 15, "the page asked for less than it says"
            # What a link leads to is the dashboard, in a window of its own.
            browser.run(f"location.href = {json.dumps(writable.url('/dashboard/'))}; 1")
            browser.until("document.body && document.body.innerText.includes('tiny.test')")
        # The name that a stranger's page has in its own address may come to mean this machine.
        for path in ("/api/studies", "/dashboard/", "/api/studies/1"):
            browser.open(f"http://{STRANGER}:{writable.port}{path}")
            shown = browser.run("document.body.innerText")
            assert f"not known as '{STRANGER}:{writable.port}'" in shown
    assert (writable.studies(), study_of(writable)) == before


@contextlib.contextmanager
def stranger_site() -> Iterator[int]:
    """Serve an empty page on another port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>mine</title><body></body>")

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.browser
def test_its_own_page_writes_where_it_may_and_runs_no_artifact(
    writable: Dashboard, browser: Browser, finished_home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text("<title>taken</title><script>document.title = 'taken'</script>")
    artifact = writable.url(f"/artifacts/1/{upload(finished_home, file)}")
    see(browser, writable.url("/dashboard/studies/2/note"), "Final evaluation of")
    write = """fetch("/api/studies/2/note", {
        method: "PUT",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({version: 2, body: "looked at"}),
    }).then((answer) => answer.status)"""
    assert browser.run(write) == 204
    see(browser, writable.url("/dashboard/studies/2/note"), "looked at")

    opened = browser.call("Page.navigate", url=artifact)

    assert opened["errorText"] == "net::ERR_ABORTED", "it is downloaded"
    assert browser.run("document.title") != "taken"
    # Nor does it run inside of the page.
    refused = browser.run(f"""new Promise((done) => {{
        const frame = document.createElement("iframe");
        const tell = (event) => done(event.effectiveDirective);
        document.addEventListener("securitypolicyviolation", tell);
        frame.src = {json.dumps(artifact)};
        document.body.append(frame);
    }})""")
    assert refused == "frame-src"
