"""Everything works behind a pooler that gives each transaction to another session."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState

from skdtune.queue import leases, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.stored_study import load_study

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

# storage/README.md shows the like.
SETTINGS = """
[databases]
* = host={server} user=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = 1
max_client_conn = 100
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
logfile = {folder}/log
"""


@pytest.fixture
def pooled_url(
    postgres_server: str, postgres_url: str, until: Callable[..., Any]
) -> Iterator[str]:
    """Return the URL of an empty database behind a real pgbouncer with one server connection."""
    if PGBOUNCER is None:
        pytest.skip("there is no pgbouncer on this machine: `apt-get install pgbouncer`")
    first = (Path(postgres_server) / "postmaster.pid").read_text().split()[0]
    with tempfile.TemporaryDirectory(prefix="skdtune-pooler-") as name:
        folder = Path(name)
        (folder / "settings.ini").write_text(SETTINGS.format(server=postgres_server, folder=name))
        folder.chmod(0o777)
        # It refuses to run as root; whoever runs the server reaches its socket.
        user = psutil.Process(int(first)).username()
        command = [PGBOUNCER, "-q", "-u", user, str(folder / "settings.ini")]
        with subprocess.Popen(command) as pooler:
            try:
                until((folder / ".s.PGSQL.6432").exists, "the pooler listens")
                yield postgres_url.replace(f"host={postgres_server}", f"host={name}&port=6432")
            finally:
                pooler.terminate()


def test_a_study_lives_behind_a_pooler_with_a_single_connection(
    pooled_url: str,
    make_search: Callable[..., Any],
    start: Callable[..., Any],
    start_worker: Callable[..., Any],
) -> None:
    place = ("--storage", pooled_url)
    creators = [start("create-study", "digits-dsr", *place) for _ in range(2)]
    assert [creator.wait() for creator in creators] == [0, 0], [c.err for c in creators]
    assert sorted(creator.out.split()[0] for creator in creators) == ["created", "digits-dsr"]

    search = make_search(pooled_url, num_trials=14)
    workers = [start_worker(search, "--max-trials", "1") for _ in range(2)]
    ended: list[int] = []

    def end_some() -> None:
        with contextlib.closing(load_study("tiny", storage=pooled_url)) as stored:
            for _ in range(2):
                claim = leases.claim(stored.engine, stored.study_id, leases.WorkerIdentity("cpu"))
                assert claim is not None
                # Often enough for psycopg to prepare the statement, were it allowed to.
                for epoch in range(6):
                    trial_writes.write_report(stored.engine, claim, epoch, 0.5)
                trial_writes.finish(
                    stored.engine,
                    claim,
                    TrialState.COMPLETE,
                    EventKind.COMPLETE,
                    value=0.5,
                    epochs=6,
                    user={"note": "many", "rows": 1, "at": 2, "once": 3},
                )
                leases.reap(stored.engine, stored.study_id)
                ended.append(claim.number)

    clients = [threading.Thread(target=end_some) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [worker.wait() for worker in workers] == [0, 0], [worker.err for worker in workers]
    assert len(ended) == len(set(ended)) == 12
    assert search.states == ["COMPLETE"] * 14
    assert [search.story(number) for number in range(14)] == [["claimed", "complete"]] * 14

    for command in (["status", "tiny"], ["best", "tiny"], ["storage", "upgrade"], ["doctor"]):
        done = start(*command, *place)
        assert done.wait() == 0, done.err
    assert "a connection pooler stands before the server" in done.out
    search.stored.storage.delete_study(search.stored.study_id)
    assert [study.study_name for study in search.stored.storage.get_all_studies()] == [
        "digits-dsr"
    ]
