"""The service in its deployable form: compose file, image, PostgreSQL settings and init SQL.

``compose-spec.json`` is the schema of the Compose Specification, unchanged: the work of its
authors and of Docker, Inc., under the Apache License 2.0 (https://compose-spec.io,
https://www.apache.org/licenses/LICENSE-2.0). No Docker is needed here; the PostgreSQL that the
settings and the SQL run on is a real one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import tempfile
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jsonschema
import psycopg
import pytest
import yaml

from skdtune.describe.presets import find
from skdtune.views.dashboard.door import hosts_of

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
STORAGE = ROOT / "storage"
CONF = STORAGE / "postgres" / "postgresql.conf"
INIT_SQL = STORAGE / "postgres" / "init.sql"

FIRST_PASSWORD = "first-0123456789abcdef"
SECOND_PASSWORD = "second-0123456789abcdef"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


# The compose file


def test_compose_file_follows_the_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    assert [error.message for error in validator.iter_errors(compose)] == []
    broken = {**compose, "services": {"postgres": {"imagee": "postgres:16"}}}
    assert list(validator.iter_errors(broken)), "the schema no longer judges anything"


def test_services_start_in_order(services: dict[str, dict[str, Any]]) -> None:
    order = {
        name: {other: on["condition"] for other, on in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }

    after_init = {"init": "service_completed_successfully"}
    assert order == {
        "postgres": {},
        "init": {"postgres": "service_healthy"},
        "dashboard": after_init,
        "driver": after_init,
        "workers-cpu": after_init,
        "workers-gpu": after_init,
    }
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    # While the volume is set up the image runs a server that only listens on its socket.
    assert "127.0.0.1" in services["postgres"]["healthcheck"]["test"]
    assert services["init"]["restart"] == "no"


def test_only_what_a_first_start_needs_has_no_profile(
    services: dict[str, dict[str, Any]],
) -> None:
    profiles = {name: service.get("profiles", []) for name, service in services.items()}

    assert profiles == {
        "postgres": [],
        "init": [],
        "dashboard": [],
        "driver": ["driver"],
        "workers-cpu": ["cpu"],
        "workers-gpu": ["gpu"],
    }


def test_only_the_dashboard_is_published_and_only_on_loopback(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    published = {
        name: service["ports"] for name, service in services.items() if "ports" in service
    }

    assert published == {"dashboard": ["127.0.0.1:8080:8080"]}
    command = services["dashboard"]["command"]
    assert "--allow-write" not in command
    # The loopback addresses of the container, and the port that a browser on the machine sees.
    port = int(command[command.index("--port") + 1])
    assert "127.0.0.1:8080" in hosts_of(["127.0.0.1"], port, [])
    assert not any("network_mode" in service for service in services.values())
    assert services["postgres"]["networks"] == ["queue"]
    assert compose["networks"]["queue"]["internal"] is True


def test_services_run_with_no_more_rights_than_they_need(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "cap_add", "pid", "ipc"} & service.keys(), name
    assert not services["postgres"]["user"].startswith(("0", "root"))


def test_workers_have_time_to_give_their_trials_back(services: dict[str, dict[str, Any]]) -> None:
    for name in ("workers-cpu", "workers-gpu"):
        assert services[name]["init"] is True, "signals must reach the launcher"
        assert services[name]["stop_grace_period"] == "1m"
    devices = services["workers-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert [device["capabilities"] for device in devices] == [["gpu"]]
    assert "deploy" not in services["workers-cpu"]


def test_every_process_shares_home_and_storage(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    for name, service in services.items():
        if name == "postgres":
            continue
        assert "home:/var/lib/skdtune" in service["volumes"], name
        assert service["environment"]["SKDTUNE_HOME"] == "/var/lib/skdtune", name
        url = service["environment"]["SKDTUNE_STORAGE"]
        assert url == "postgresql+psycopg://skdtune@postgres:5432/skdtune", name

    sources = {
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
    }
    files = {source for source in sources if source.startswith(".")}
    assert all((ROOT / file).is_file() for file in files)
    assert sources - files == compose["volumes"].keys()


# Passwords and variables


def test_no_password_is_written_anywhere(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if "PASS" in variable:
                # No default either: `:?` refuses a variable that is missing or empty.
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {variable}"

    for file in (COMPOSE, DOCKERFILE, STORAGE / "env.example", CONF):
        text = re.sub(r"\$\{[^}]*\}", "$", re.sub(r"#.*", "", file.read_text()))
        assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text), f"{file.name}: URL with password"
        assigned = re.findall(r"(?i)passw(?:or)?d[ \t]*[:=][ \t]*+(?!\$)(\S+)", text)
        assert assigned == [], f"{file.name}: password with a value"
    assert re.findall(r"PASSWORD (\S+);", INIT_SQL.read_text()) == [":'password'"]
    assert "PASS" not in DOCKERFILE.read_text().upper()


def test_env_example_names_exactly_the_variables_of_the_compose_file() -> None:
    example = (STORAGE / "env.example").read_text()
    named = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE)

    assert sorted(named) == sorted(set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text())))
    lines = example.splitlines()
    for variable in named:
        line = next(i for i, text in enumerate(lines) if text.startswith(f"{variable}="))
        assert lines[line - 1].startswith("# "), f"{variable} is not explained"


def test_env_file_stays_out_of_git_and_of_the_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored[0] == "*", "the build context is a list of what goes in"
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert allowed == {"pyproject.toml", "README.md", "LICENSE", "skdtune", "studies"}
    assert all((ROOT / name).exists() for name in allowed)


# Commands


def require_command(words: list[str]) -> None:
    """Assert that the command line has this command, and this command these options."""
    from skdtune.cli.main import cli

    command: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(command, click.Group):
        assert rest, f"{words}: a command is missing"
        found = command.get_command(context, rest.pop(0))
        assert found is not None, f"{words}: no such command"
        command = found
    options = {opt for param in (*command.params, *cli.params) for opt in param.opts}
    unknown = {word for word in rest if word.startswith("-")} - options
    assert not unknown, f"{words}: no such option {unknown}"


@pytest.mark.parametrize("service", ["init", "dashboard", "workers-cpu", "workers-gpu"])
def test_command_of_a_service_exists(services: dict[str, dict[str, Any]], service: str) -> None:
    require_command(services[service]["command"])


def documented_commands() -> list[str]:
    """Return what follows ``skdtune`` or the driver service in the examples of the documents."""
    readme = (STORAGE / "README.md").read_text()
    examples = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    examples += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", readme, flags=re.M | re.S))
    for file in (COMPOSE, STORAGE / "env.example"):
        examples += re.findall(r"docker compose run .*", file.read_text())
    found = []
    for example in examples:
        match = re.match(r"(?:skdtune|docker compose run(?: -\S+)* driver) (\S.*)", example)
        if match and "--entrypoint" not in example:
            found.append(re.split(r" > |\s+# ", match[1])[0])
    return sorted(set(found) - {"..."})


@pytest.mark.parametrize("example", documented_commands())
def test_documented_command_exists(example: str) -> None:
    require_command(shlex.split(example))


def test_example_study_is_a_preset() -> None:
    studies = re.findall(r"SKDTUNE_STUDY=(\S+)", (STORAGE / "env.example").read_text())
    studies += re.findall(r"create-study (\w\S*)", (STORAGE / "README.md").read_text())

    for study in studies:
        assert find(study.rstrip("`.")).content, study


# The image


@dataclass
class Stage:
    """What one stage of the Dockerfile ends with."""

    base: str
    user: str | None = None
    entrypoint: str | None = None


def read_stages() -> dict[str, Stage]:
    """Read the Dockerfile's stages; a stage inherits from the one that it is built on."""
    stages: dict[str, Stage] = {}
    current = Stage("")
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, argument = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            parent = stages.get(base, Stage(base))
            current = stages[name] = Stage(base, parent.user, parent.entrypoint)
        elif instruction == "USER":
            current.user = argument
        elif instruction == "ENTRYPOINT":
            current.entrypoint = argument
    return stages


def test_images_run_skdtune_as_an_ordinary_user(services: dict[str, dict[str, Any]]) -> None:
    stages = read_stages()
    targets = {service["build"]["target"] for service in services.values() if "build" in service}

    assert targets == {"driver", "worker"}
    for target in targets:
        stage = stages[target]
        assert stage.user is not None, f"{target} runs as root"
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", stage.user), f"{target}: {stage.user}"
        assert stage.entrypoint is not None
        assert json.loads(stage.entrypoint) == ["skdtune"]
    assert not any("user" in services[name] for name in services if name != "postgres")


def test_only_the_worker_image_installs_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = re.findall(r'ARG REQUIREMENT="(.+)"', DOCKERFILE.read_text())

    assert requirements == ["skdtune", "skdtune[train]"]
    assert any(name.startswith("torch") for name in project["optional-dependencies"]["train"])
    assert not any(name.startswith("torch") for name in project["dependencies"])
    assert "skdtune" in project["scripts"]


# PostgreSQL


def postgres_program(name: str) -> Path:
    """Return a program of the PostgreSQL that the tests bring along."""
    spec = importlib.util.find_spec("pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name


@dataclass
class Database:
    """A running server under our settings, with `init.sql` already run once."""

    socket_dir: Path
    pgdata: Path

    def connect(self, user: str, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.socket_dir), user=user, dbname=database, autocommit=True
        )

    def rows(self, query: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect("postgres", database) as connection:
            return connection.execute(query.encode()).fetchall()

    def run_init(self, password: str | None) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SKDTUNE"))}
        if password is not None:
            environment["SKDTUNE_DB_PASSWORD"] = password
        options = ["-h", str(self.socket_dir), "-U", "postgres", "-d", "postgres"]
        return subprocess.run(
            [postgres_program("psql"), "-q", "--no-psqlrc", *options, "-f", INIT_SQL],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def log(self) -> str:
        return (self.pgdata / "log").read_text()


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # Not below pytest's own folder: another run closes that to the server's user.
    with tempfile.TemporaryDirectory(prefix="skdtune-pg-") as folder:
        yield from _started(Path(folder) / "data")


def _started(pgdata: Path) -> Iterator[Database]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns at import where XDG_RUNTIME_DIR is not set
        from pgserver.postgres_server import get_server
    get_server(pgdata).cleanup()
    (pgdata / "postgresql.conf").write_text(CONF.read_text())
    server = get_server(pgdata)
    try:
        socket_dir = server.get_postmaster_info().socket_dir
        assert socket_dir is not None
        started = Database(socket_dir, pgdata)
        first = started.run_init(FIRST_PASSWORD)
        assert first.returncode == 0, first.stderr
        assert first.stdout + first.stderr == ""
        yield started
    finally:
        server.cleanup()


def conf_settings() -> dict[str, str]:
    lines = re.findall(r"^(\w+) = ('[^']*'|\S+)", CONF.read_text(), re.MULTILINE)
    return {name: value.strip("'") for name, value in lines}


def test_image_has_the_version_that_the_settings_are_tested_on(
    services: dict[str, dict[str, Any]],
) -> None:
    version = subprocess.check_output([postgres_program("postgres"), "--version"], text=True)
    tested = re.search(r"(\d+)\.", version)
    image = re.fullmatch(r"postgres:(\d+)-\w+", services["postgres"]["image"])

    assert tested is not None
    assert image is not None, "the image must be pinned to a major version"
    assert image[1] == tested[1]


def test_settings_are_explained_one_by_one() -> None:
    lines = [line for line in CONF.read_text().splitlines() if line and not line.startswith("#")]

    assert len(lines) == len(conf_settings())
    assert all(re.search(r"\S\s+# \S", line) for line in lines)


def test_settings_are_accepted_and_in_force(database: Database) -> None:
    in_file = database.rows("SELECT name, error FROM pg_file_settings")
    in_force = database.rows("SELECT name FROM pg_settings WHERE source = 'configuration file'")

    # The server of this test is told on its command line not to listen on the network.
    overridden = ("listen_addresses", "setting could not be applied")
    assert [row for row in in_file if row[1] is not None] == [overridden]
    assert {name.lower() for name, _ in in_file} == conf_settings().keys()
    effective = {name.lower() for (name,) in in_force}
    assert conf_settings().keys() - effective == {"listen_addresses"}
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert database.rows(f"SHOW {setting}") == [("on",)]
    assert database.rows("SHOW password_encryption") == [("scram-sha-256",)]
    limit = database.rows("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'skdtune'")[0][0]
    assert limit < int(conf_settings()["max_connections"])


def test_server_refuses_a_setting_that_does_not_exist(database: Database, tmp_path: Path) -> None:
    def check(text: str) -> subprocess.CompletedProcess[str]:
        conf = tmp_path / "postgresql.conf"
        conf.write_text(text)
        options = ["-D", str(database.pgdata), "-c", f"config_file={conf}"]
        return subprocess.run(
            [postgres_program("postgres"), "-C", "shared_buffers", *options],
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert check(CONF.read_text()).stdout.strip() == "32768"  # 256 MB in pages of 8 kB
    assert check(CONF.read_text() + "no_such_setting = 1\n").returncode != 0


def test_init_sql_changes_nothing_but_the_password_when_run_again(database: Database) -> None:
    catalogue = (
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin,"
        " rolconnlimit FROM pg_roles WHERE rolname = 'skdtune'",
        "SELECT pg_get_userbyid(datdba), datacl::text FROM pg_database WHERE datname = 'skdtune'",
        "SELECT datacl::text FROM pg_database WHERE datname = 'postgres'",
    )
    stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'skdtune'"
    before = [database.rows(query) for query in catalogue]
    password_before = database.rows(stored)

    again = database.run_init(SECOND_PASSWORD)

    assert again.returncode == 0, again.stderr
    assert [database.rows(query) for query in catalogue] == before
    assert before[0] == [(False, False, False, False, False, True, 200)]
    password_after = database.rows(stored)[0][0]
    assert password_after.startswith("SCRAM-SHA-256$")
    assert password_after != password_before[0][0]


@pytest.mark.parametrize("password", [None, "", "short"])
def test_init_sql_refuses_to_go_on_without_a_password(
    database: Database, password: str | None
) -> None:
    before = database.rows("SELECT rolpassword FROM pg_authid WHERE rolname = 'skdtune'")

    refused = database.run_init(password)

    assert refused.returncode != 0
    assert "SKDTUNE_DB_PASSWORD is missing or shorter" in refused.stderr
    after = database.rows("SELECT rolpassword FROM pg_authid WHERE rolname = 'skdtune'")
    assert after == before


def test_other_roles_get_nothing_in_the_database(database: Database) -> None:
    with database.connect("postgres", "skdtune") as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN")
        allowed = connection.execute(
            "SELECT has_database_privilege('stranger', 'skdtune', 'CONNECT'),"
            " has_database_privilege('stranger', 'skdtune', 'TEMPORARY'),"
            " has_schema_privilege('stranger', 'public', 'CREATE')"
        ).fetchone()
    assert allowed == (False, False, False)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        database.connect("stranger", "skdtune")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        database.connect("skdtune", "postgres")


def test_role_may_make_the_tables_of_the_queue(database: Database) -> None:
    from skdtune.queue.storage import init_storage

    url = f"postgresql+psycopg://skdtune@/skdtune?host={database.socket_dir}"

    for _ in range(2):
        init_storage(url).engine.dispose()

    owners = database.rows(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'",
        database="skdtune",
    )
    assert owners == [("skdtune",)]


def test_log_shows_neither_passwords_nor_parameters(database: Database) -> None:
    with database.connect("skdtune", "skdtune") as connection:
        connection.execute("CREATE TEMPORARY TABLE seen (word text PRIMARY KEY)")
        connection.execute("INSERT INTO seen VALUES (%s)", ["parameter-of-mine"])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO seen VALUES (%s)", ["parameter-of-mine"])
        connection.execute("SELECT pg_sleep(1.1), %s::text", ["parameter-of-mine"])
    database.run_init(SECOND_PASSWORD)

    log = database.log()
    assert "duplicate key value" in log
    assert "pg_sleep" in log, "slow statements are shown"
    for secret in ("parameter-of-mine", FIRST_PASSWORD, SECOND_PASSWORD):
        assert secret not in log
