from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa

from skdtune.describe.data_source import ClassSource, DataSource
from skdtune.errors import OtherDataError, StudyError
from skdtune.queue import leases, schema
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.pinned_source import ATTRIBUTES, pin, read_pins
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_queue import TrialQueue

MakeStudy = Callable[..., StoredStudy]


def data(digest: str, folder: str = "") -> DataSource:
    return DataSource(classes=(ClassSource("cat", 3, digest),), folder=folder)


HERE, THERE = data("aa", "/here"), data("bb", "/there")


def pins(stored: StoredStudy) -> dict[str, DataSource]:
    return dict(TrialQueue(stored).pinned_sources())


def claim(stored: StoredStudy, source: DataSource, token: str = "alice") -> Claim | None:
    worker = WorkerIdentity(device="cpu", token=token)
    return TrialQueue(stored).claim(worker, {"train": source})


def put(stored: StoredStudy, text: str) -> None:
    table = schema.study_system_attributes
    with stored.engine.begin() as connection:
        connection.execute(
            sa.update(table)
            .where(table.c.study_id == stored.study_id, table.c.key == ATTRIBUTES["train"])
            .values(value_json=text)
        )


def test_the_first_claim_pins_and_other_data_take_no_trial(make_study: MakeStudy) -> None:
    stored, other = make_study(num_trials=2), make_study(name="other")
    assert pins(stored) == {}
    assert claim(stored, HERE) is not None
    assert pins(stored) == {"train": HERE}
    kept = stored.storage.get_study_system_attrs(stored.study_id)[ATTRIBUTES["train"]]
    assert kept == {"digest": HERE.digest, "classes": [["cat", 3, "aa"]]}
    with pytest.raises(OtherDataError, match=r"^study 'tiny' was begun .* than /there has now: "):
        claim(stored, THERE)
    assert leases.counts(stored.engine, stored.study_id)[leases.TrialState.WAITING] == 1
    assert pins(stored) == {"train": HERE}
    assert claim(stored, data("aa", "/elsewhere")) is not None
    # Where no trial waits nothing is pinned, and of another study nothing is known.
    assert claim(stored, THERE) is None
    assert claim(other, THERE) is not None


def test_a_worker_that_dies_in_its_claim_pins_nothing(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=1)

    def die(connection: sa.Connection) -> None:
        pin(connection, stored.study_id, "tiny", {"train": HERE})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"), 60, die)
    assert pins(stored) == {}
    assert claim(stored, THERE) is not None


def test_of_workers_that_race_with_different_data_those_of_one_win(make_study: MakeStudy) -> None:
    for number in range(2):
        stored = make_study(name=f"race-{number}", num_trials=8)

        def begin(index: int, stored: StoredStudy = stored) -> str | None:
            source = (HERE, THERE)[index % 2]
            try:
                return claim(stored, source, f"{index}") and source.digest
            except OtherDataError:
                return None

        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(begin, range(8)))
        (pinned,) = pins(stored).values()
        assert taken in ([HERE.digest, None] * 4, [None, THERE.digest] * 4)
        assert set(taken) == {None, pinned.digest}
        assert len(leases.holders(stored.engine, stored.study_id)) == 4


def test_a_study_made_anew_is_not_pinned(make_study: MakeStudy) -> None:
    stored = make_study()
    assert claim(stored, HERE) is not None
    optuna.delete_study(study_name="tiny", storage=stored.storage)
    assert claim(make_study(), THERE) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"digest": "0", "classes": []}'])
def test_a_damaged_pin_is_one_line(text: str, make_study: MakeStudy) -> None:
    stored = make_study()
    assert claim(stored, HERE) is not None
    put(stored, text)
    damaged = r"^study 'tiny': its note of the data that it was begun with \(skdtune:source\) is "
    for look in (functools.partial(claim, stored, HERE), functools.partial(pins, stored)):
        with pytest.raises(StudyError, match=damaged):
            look()


def test_an_evaluation_learns_from_the_images_of_its_search(
    make_study: MakeStudy, finish_trials: Callable[..., None], ready_url: str
) -> None:
    stored = make_study(preset="digits-baseline", num_trials=2)
    finish_trials(ready_url, "tiny", 0.5, 0.6)
    with stored.engine.begin() as connection:
        # As if its trials had been claimed with these.
        pin(connection, stored.study_id, "tiny", {"train": HERE, "test": THERE})
    create_evaluation("tiny", num_seeds=1, storage=ready_url)
    evaluation = load_study("tiny.test", storage=ready_url)
    assert pins(evaluation) == {"train": HERE}
    with pytest.raises(OtherDataError, match=r"^study 'tiny.test' was begun with other training "):
        claim(evaluation, THERE)
    # One of an earlier release gets it with its next seeds.
    with evaluation.engine.begin() as connection:
        table = schema.study_system_attributes
        mine = (table.c.study_id == evaluation.study_id, table.c.key == ATTRIBUTES["train"])
        connection.execute(sa.delete(table).where(*mine))
    create_evaluation("tiny", num_seeds=2, storage=ready_url)
    assert read_pins(evaluation.engine, evaluation.study_id, "tiny.test") == {"train": HERE}
    worker = WorkerIdentity(device="cpu")
    assert TrialQueue(evaluation).claim(worker, {"train": HERE, "test": THERE}) is not None
    with pytest.raises(OtherDataError, match=r"other test images .*, or evaluate under "):
        TrialQueue(evaluation).claim(worker, {"train": HERE, "test": HERE})
    evaluation.close()
