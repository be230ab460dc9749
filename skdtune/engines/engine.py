"""What an engine is: it starts identical workers of studies somewhere, and follows them.

A worker is the same command everywhere, ``skdtune worker STUDY...``. An engine decides where it
runs, starts it again, and passes on what a person asks for. It holds no state of a study: that is
in the storage, and a worker that an engine knows to be dead is given back there at once. For that
every process gets a token of its own, one that is started again too: names of hosts and numbers of
processes are not unique where there are containers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skdtune.queue.worker_token import TOKEN_VARIABLE


@dataclass(frozen=True)
class Slot:
    """A place for one worker: a device, and the environment that shows it alone."""

    index: int
    """Number of the slot within its engine."""

    device: str
    """What the worker is told to train on: ``cpu``, ``cuda:0``."""

    label: str
    """What people call the place; workers of one label share a device."""

    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which workers are wanted."""

    gpus: str | None = None
    """``all``, a list such as ``0,2``, or ``none``; None for all, if there are any."""

    workers: int | None = None
    """Workers in all; None for one per GPU, or per core without GPUs."""

    workers_per_gpu: int = 1
    """Workers that share one GPU."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker of an engine is started for."""

    study: str
    """Name of the study, of several the first one; empty for whatever the storage has."""

    environment: Mapping[str, str]
    """Variables that every worker gets; the storage URL travels here and not on the command line,
    where every user of the machine could read its password."""

    log_dir: Path
    """Folder of the workers' logs; nobody else writes there."""

    give_back: Callable[[str], None]
    """Called with the token of a worker that died."""

    more: tuple[str, ...] = ()
    """Names of further studies that the same workers serve."""

    options: tuple[str, ...] = ()
    """What the workers are told beside studies and device: ``--in-order``, ``--serve``."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """What ``skdtune`` is called with in every place, but for ``--device``."""
        named = (self.study, *self.more) if self.study else ()
        return ("worker", *named, *self.options)

    def environment_of(self, slot: Slot, token: str) -> dict[str, str]:
        """Return the variables of a worker, beside those of the machine.

        Args:
            slot: Its place.
            token: What ``give_back`` will be called with if it dies: 16 to 64 letters, digits,
                - or _ that no other process has.
        """
        return {**self.environment, **slot.environment, TOKEN_VARIABLE: token}


@dataclass(frozen=True, kw_only=True)
class FailedWorker:
    """A worker that ended with an error and is not started again."""

    exit_code: int
    message: str
    """Its last words."""

    log: Path


class Engine(Protocol):
    """Starts, follows and ends the workers of one launch.

    ``poll`` is called a few times per second from ``start`` on until it returns False; all other
    methods return at once, but for ``kill``.
    """

    @property
    def num_workers(self) -> int:
        """Workers that are wanted and were started, those that have ended included."""

    @property
    def num_restarts(self) -> int:
        """Times that a worker was started again."""

    @property
    def stopping(self) -> bool:
        """The workers were asked to leave; none is started again."""

    @property
    def where_logs(self) -> str:
        """Where a person finds what the workers say."""

    def slots(self) -> Sequence[Slot]:
        """Return the places of the workers that are wanted.

        Raises:
            InputError: If there are not so many.
        """

    def start(self) -> None:
        """Start a worker in every slot."""

    def poll(self) -> bool:
        """Look after the workers once; True while any of them lives or will be started again."""

    def scale(self, num_workers: int) -> None:
        """Have so many workers from now on: more are started, surplus ones finish their trial.

        Raises:
            InputError: If there are not so many places.
        """

    def drain(self) -> None:
        """Let every worker finish the trial in hand and take no other."""

    def interrupt(self) -> None:
        """Let every worker give its trial back and leave."""

    def kill(self) -> None:
        """End every worker at once, and wait for that; their trials go back to the queue."""

    def failures(self) -> Sequence[FailedWorker]:
        """Return the workers that ended with an error for good, the first one first."""
