"""Whether the storage can be reached and written, how far it is, and how many it can serve."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from skdtune.doctor.finding import Finding, Installation

if TYPE_CHECKING:
    from skdtune.queue.storage_facts import StorageFacts

_found = partial(Finding, "storage")

#: The database's clock alone decides; people compare the times that it writes with their own.
_CLOCK_S = 2.0
#: A claim takes some ten statements: further away than this, workers of short trials wait for it.
_FAR_MS = 50.0
#: Share of a server's connections above which the next workers may find none.
_CROWDED = 0.8


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the storage; where it cannot be used, its error says why."""
    from skdtune.errors import StorageEmptyError, StorageError
    from skdtune.queue.storage import masked, open_storage, parse_url, require_writable
    from skdtune.queue.storage_facts import storage_facts
    from skdtune.queue.stored_study import study_names

    url = parse_url(installation.storage_url)
    try:
        storage = open_storage(installation.storage_url)
    except StorageEmptyError as error:
        yield _found("note", str(error))
        return
    try:
        facts = storage_facts(storage)
        number = len(study_names(storage))
        there = f"{number} {'study' if number == 1 else 'studies'}"
        yield _found("ok", f"{masked(url)}: {facts.server}, {there}")
        try:
            require_writable(storage)
        except StorageError as error:
            yield _found("wrong", str(error), "workers need a user, or a file, that may write")
        else:
            yield _found("ok", "it can be written")
    finally:
        storage.engine.dispose()
    yield from _distance(facts)
    yield from _limits(facts)


def _distance(facts: StorageFacts) -> Iterator[Finding]:
    far = facts.latency_ms > _FAR_MS
    yield _found(
        "note" if far else "ok",
        f"a statement takes {facts.latency_ms:.1f} ms",
        "put the server nearer to the workers, or let trials be longer" if far else "",
    )
    differs = abs(facts.clock_ahead_s) > _CLOCK_S
    says = f"its clock is {abs(facts.clock_ahead_s):.1f} s "
    says += "ahead of this machine's" if facts.clock_ahead_s > 0 else "behind this machine's"
    yield _found(
        "note" if differs else "ok",
        says if differs else "its clock agrees with this machine's",
        "leases go by the storage's clock and are safe; set both by NTP" if differs else "",
    )


def _limits(facts: StorageFacts) -> Iterator[Finding]:
    if not facts.may_create:
        yield _found(
            "note",
            "this user may not make tables",
            "after an upgrade of skdtune let the owner run `skdtune storage init`",
        )
    if facts.has_pooler:
        yield _found("ok", "a connection pooler stands before the server")
    elif facts.max_connections:
        used, allowed = facts.num_connections, facts.max_connections
        crowded = used > _CROWDED * allowed
        yield _found(
            "note" if crowded else "ok",
            f"{used} of its {allowed} connections are in use; a worker takes up to 4",
            "raise max_connections, or put pgbouncer in front" if crowded else "",
        )
