"""Who trains and who trained: workers that fell silent, and versions that are mixed."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from functools import partial

from skdtune.doctor.finding import Finding, Installation

_found = partial(Finding, "workers")


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the workers of all studies, or of those that are named."""
    from skdtune.analysis.tables import format_count
    from skdtune.errors import StorageError
    from skdtune.queue.leases import WorkerIdentity, holders_of
    from skdtune.queue.storage import open_storage
    from skdtune.queue.stored_study import expand_family, study_names
    from skdtune.queue.versions_seen import versions_seen

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
        with storage.engine.connect() as connection:
            held = holders_of(connection, ids)
        seen = versions_seen(storage.engine, ids)
    finally:
        storage.engine.dispose()
    lost = [row for row in held if row["silent_s"] > row["lease_s"]]
    yield _found("ok", f"{format_count(len(held) - len(lost), 'trial')} in hand now")
    for row in lost:
        who = WorkerIdentity(device=row["device"], token="", host=row["host"], pid=row["pid"])
        yield _found(
            "note",
            f"trial {row['number']} of {row['study_name']}: {who} has been silent for "
            f"{row['silent_s']:.0f} s",
            "the next worker gives it back, or `skdtune storage reap`",
        )
    for package, counts in sorted(seen.items()):
        yield from _mixed(package, counts)
    if seen and all(len(counts) == 1 for counts in seen.values()):
        versions = ", ".join(f"{name} {next(iter(counts))}" for name, counts in seen.items())
        yield _found("ok", f"all trials so far were trained with {versions}")


def _mixed(package: str, counts: Counter[str]) -> Iterator[Finding]:
    """Say where trials were trained with several versions, or with another one than is here."""
    from skdtune.describe.packages import installed_version

    here = platform.python_version() if package == "python" else installed_version(package)
    if len(counts) > 1:
        shares = ", ".join(f"{found} ({number})" for found, number in counts.most_common())
        yield _found(
            "note",
            f"trials were trained with several versions of {package}: {shares}",
            "compare them with care; give all workers one version",
        )
    # What torch was built for stands behind a plus, in one of the two or in both.
    elif here and here.partition("+")[0] not in {found.partition("+")[0] for found in counts}:
        yield _found(
            "note",
            f"trials were trained with {package} {next(iter(counts))}, this machine has {here}",
            "install the same version here, or do not mix them in one study",
        )
