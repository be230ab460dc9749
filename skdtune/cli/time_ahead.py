"""How long studies will take here: from earlier trials of this machine, else a short probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skdtune.errors import InputError, in_one_line

if TYPE_CHECKING:
    from skdtune.cli.application import Application
    from skdtune.describe.spec import StudySpec

#: Images that are seen in so short a time on any machine that nobody need be told before.
_WORTH_A_PROBE = 20_000_000
#: Seconds that are over before anybody has read how many they are.
_WORTH_A_LINE = 60.0


def time_ahead(
    application: Application, left: Sequence[tuple[StudySpec, int]], num_workers: int
) -> str:
    """Say how long some studies will take here; empty where that is not known, or not worth it.

    Trials that this machine trained count first. Without any, one study is measured for a few
    seconds where its data are here, and the others are taken to be as fast, image by image.

    Args:
        application: Where storage and data are.
        left: The studies, each with the number of its trials that are to be trained.
        num_workers: Workers that are asked for.
    """
    from skdtune.analysis.time_ahead import TrialsAhead, describe_time_ahead, seconds_ahead

    wanted = [(spec, number) for spec, number in left if number]
    epoch_s = _from_earlier_trials(application, [spec for spec, _ in wanted])
    source = "as earlier trials of this machine took"
    unknown = [spec for spec, _ in wanted if spec.name not in epoch_s]
    if unknown and not epoch_s:
        if sum(_images(spec) * number for spec, number in wanted) < _WORTH_A_PROBE:
            return ""
        measured = _from_probe(application, unknown[0])
        if measured is None:
            return ""
        epoch_s, source = {unknown[0].name: measured}, "as a short probe measured"
    if not wanted:
        return ""
    known = [spec for spec, _ in wanted if spec.name in epoch_s]
    usual = sum(epoch_s[spec.name] / spec.method.images_per_anchor for spec in known) / len(known)
    ahead = [
        TrialsAhead(
            number,
            spec.budget.epochs * epoch_s.get(spec.name, usual * spec.method.images_per_anchor),
        )
        for spec, number in wanted
    ]
    if seconds_ahead(ahead, 1) < _WORTH_A_LINE:
        return ""
    return describe_time_ahead(ahead, num_workers, source)


def _images(spec: StudySpec) -> float:
    """Return the images that a trial sees, as far as they are known without the data."""
    from skdtune.describe.training_length import most_training_images

    # What nobody knows is taken for much.
    images = most_training_images(spec) or _WORTH_A_PROBE
    return float(images) * spec.budget.epochs * spec.method.images_per_anchor


def _from_earlier_trials(
    application: Application, specs: Sequence[StudySpec]
) -> Mapping[str, float]:
    # Describing a study needs no database's library where there is no database yet.
    if _is_missing_file(application.url):
        return {}
    from skdtune.queue.earlier_trials import epoch_seconds_here
    from skdtune.queue.storage import DATABASE_ERRORS, open_storage

    try:
        opened = open_storage(application.url)
    except InputError:
        # There is none yet.
        return {}
    try:
        each = {spec.name: epoch_seconds_here(opened.engine, spec) for spec in specs}
    except DATABASE_ERRORS:
        # It is only an estimate.
        return {}
    finally:
        opened.engine.dispose()
    return {name: seconds for name, seconds in each.items() if seconds is not None}


def _is_missing_file(url: str) -> bool:
    scheme, _, path = url.partition(":///")
    return scheme.startswith("sqlite") and not Path(path.partition("?")[0]).is_file()


def _from_probe(application: Application, spec: StudySpec) -> float | None:
    """Train a few steps in another process, if that takes no download; None where it fails."""
    from skdtune.data.look import look_at_data
    from skdtune.describe.budget_planning import measure_epoch

    here = spec.model_copy(update={"data": spec.data.model_copy(update={"download": False})})
    try:
        if look_at_data([here], data_dir=application.home.data):
            return None
        _tell(application, f"measuring how fast {spec.name} trains here, for a few seconds")
        return measure_epoch(here, at=application.home)
    except InputError as error:
        _tell(application, f"how long it takes is not known: {in_one_line(error)}")
        return None


def _tell(application: Application, message: str) -> None:
    if application.verbosity >= 0:
        click.echo(message, err=True)
