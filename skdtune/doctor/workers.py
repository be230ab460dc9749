"""Who trains and who trained: workers that fell silent, and versions that are mixed."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from skdtune.doctor.finding import Finding, Installation, Level


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the workers of all studies, or of those that are named."""
    from skdtune.analysis.tables import format_count
    from skdtune.errors import StorageError
    from skdtune.queue.storage import open_storage
    from skdtune.queue.stored_study import expand_family, study_names
    from skdtune.queue.workers_seen import held_trials, versions_seen

    url = installation.storage_url
    try:
        storage = open_storage(url)
    except StorageError:
        # Why is said where the storage is looked at.
        return
    try:
        there = study_names(storage)
        wanted = expand_family(installation.study, storage=url) if installation.study else there
        ids = [storage.get_study_id_from_name(name) for name in wanted if name in there]
        held = held_trials(storage.engine, ids)
        seen = versions_seen(storage.engine, ids)
    finally:
        storage.engine.dispose()
    lost = [trial for trial in held if trial.is_lost]
    yield _found("ok", f"{format_count(len(held) - len(lost), 'trial')} in hand now")
    for trial in lost:
        says = f"trial {trial.number} of {trial.study}: {trial.worker} has been silent for "
        yield _found(
            "note",
            f"{says}{trial.silent_s:.0f} s",
            "the next worker gives it back, or `skdtune storage reap`",
        )
    for package, counts in sorted(seen.items()):
        yield from _mixed(package, counts)
    if seen and all(len(counts) == 1 for counts in seen.values()):
        versions = ", ".join(f"{name} {next(iter(counts))}" for name, counts in seen.items())
        yield _found("ok", f"all trials so far were trained with {versions}")


def _mixed(package: str, counts: Counter[str]) -> Iterator[Finding]:
    """Say where trials were trained with several versions, or with another one than is here."""
    here = _version_here(package)
    if len(counts) > 1:
        shares = ", ".join(f"{found} ({number})" for found, number in counts.most_common())
        yield _found(
            "note",
            f"trials were trained with several versions of {package}: {shares}",
            "compare them with care; give all workers one version",
        )
    # A version that was built for CUDA says so behind a plus, where it is installed it does not.
    elif here is not None and here not in {found.partition("+")[0] for found in counts}:
        yield _found(
            "note",
            f"trials were trained with {package} {next(iter(counts))}, this machine has {here}",
            "install the same version here, or do not mix them in one study",
        )


def _version_here(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def _found(level: Level, says: str, remedy: str = "") -> Finding:
    return Finding(about="workers", level=level, says=says, remedy=remedy)
