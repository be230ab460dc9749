"""What sampler and pruner of a worker see of a study, and where they write.

Optuna's own cache reads every trial that is not finished at each look, those that only wait
included, and stores parameters one by one. Here finished trials are read once, trials that wait
never, and the parameters of a trial in one transaction that its lease guards.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Container, Iterator, Sequence
from typing import Any, NoReturn

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from skdtune.queue.foreign_trials import foreign_ids, read_frozen, strange_value
from skdtune.queue.leases import IS_WAITING, Claim
from skdtune.queue.schema import trials
from skdtune.queue.trial_queue import TrialQueue

_BEGUN = tuple(state for state in TrialState if state is not TrialState.WAITING)


class TrialHistory(BaseStorage):
    """A study's trials that have begun, as an Optuna storage of one worker.

    Args:
        queue: The queue of the study, which makes the calls to the storage behind it.
    """

    def __init__(self, queue: TrialQueue) -> None:
        self._queue = queue
        self._stored = queue.stored
        self._backend: RDBStorage = queue.stored.storage
        self._trials: dict[int, FrozenTrial] = {}
        self._newest_id = -1
        self._open_ids: set[int] = set()
        self._claim: Claim | None = None
        self._current: FrozenTrial | None = None
        self._params: dict[str, tuple[float, BaseDistribution]] = {}

    @contextlib.contextmanager
    def through(self, queue: TrialQueue) -> Iterator[None]:
        """Make the calls to the storage in another way, such as once and without patience."""
        usual, self._queue = self._queue, queue
        try:
            yield
        finally:
            self._queue = usual

    def begin(self, claimed: Claim, sampler: BaseSampler) -> optuna.Trial:
        """Take up a claimed trial: its parameters are sampled as they are asked for."""
        self._claim = claimed
        self._params = {}
        self._current = self._queue.call(self._backend.get_trial, claimed.trial_id)
        return optuna.Trial(self.study(sampler), claimed.trial_id)

    def study(self, sampler: BaseSampler | None = None) -> optuna.Study:
        """Return the study as this worker sees it, with its pruner."""
        # A new one for each trial: Optuna keeps what it has read of a study in the object.
        return optuna.Study(
            self._stored.study.study_name,
            self,
            sampler=sampler or optuna.samplers.RandomSampler(),
            pruner=self._stored.study.pruner,
        )

    def rewind(self, curve: Sequence[float], rung_marks: Sequence[str]) -> None:
        """Forget what the trial in hand did after a checkpoint, as the storage did."""
        if self._current is not None:
            self._current.intermediate_values = dict(enumerate(curve))
            for mark in rung_marks:
                self._current.system_attrs.pop(mark, None)

    def store_params(self) -> None:
        """Store the parameters that were sampled since the trial was taken up.

        Raises:
            LeaseLostError: If the trial is not this worker's any more.
        """
        self._queue.write_params(self._require_claim(), self._params)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials that have begun, by number, but for foreign ones."""
        self._queue.call(self._read)
        seen = dict(self._trials)
        if self._current is not None:
            # As it is now: the mark of a rung that is set later must not count twice there.
            seen[self._current.number] = now = copy.copy(self._current)
            now.system_attrs = dict(self._current.system_attrs)
        wanted = [
            trial for _, trial in sorted(seen.items()) if states is None or trial.state in states
        ]
        return copy.deepcopy(wanted) if deepcopy else wanted

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return the trial in hand as it is here, any other as it is stored."""
        if self._current is not None and self._current._trial_id == trial_id:
            return self._current
        return self._queue.call(self._backend.get_trial, trial_id)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Note a parameter of the trial in hand; ``store_params`` stores it."""
        trial = self._require_current(trial_id)
        self._params[param_name] = (param_value_internal, distribution)
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute of the trial in hand: the mark of a rung."""
        trial, claimed = self._require_current(trial_id), self._require_claim()
        self._queue.write_attributes(claimed, system={key: value})
        trial.system_attrs[key] = value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute of the trial in hand."""
        trial, claimed = self._require_current(trial_id), self._require_claim()
        self._queue.write_attributes(claimed, user={key: value})
        trial.user_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the key of the study."""
        return self._stored.study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of the study."""
        return self._stored.study.study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of the objective."""
        return [StudyDirection.MAXIMIZE]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user attributes of the study."""
        return self._queue.call(self._backend.get_study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the system attributes of the study."""
        return self._queue.call(self._backend.get_study_system_attrs, study_id)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> NoReturn:
        """Refuse: a worker creates nothing."""
        raise NotImplementedError

    def create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> NoReturn:
        """Refuse: a worker creates nothing."""
        raise NotImplementedError

    def delete_study(self, study_id: int) -> NoReturn:
        """Refuse: a worker deletes nothing."""
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> NoReturn:
        """Refuse: a worker changes no study."""
        raise NotImplementedError

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> NoReturn:
        """Refuse: a worker changes no study."""
        raise NotImplementedError

    def get_all_studies(self) -> NoReturn:
        """Refuse: a worker knows one study."""
        raise NotImplementedError

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> NoReturn:
        """Refuse: a trial ends by ``TrialQueue.finish``."""
        raise NotImplementedError

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> NoReturn:
        """Refuse: an epoch is stored by ``TrialQueue.report``."""
        raise NotImplementedError

    def _require_current(self, trial_id: int) -> FrozenTrial:
        if self._current is None or self._current._trial_id != trial_id:
            raise ValueError(f"trial with key {trial_id} is not the one in hand")
        return self._current

    def _require_claim(self) -> Claim:
        if self._claim is None:
            raise ValueError("no trial is in hand")
        return self._claim

    def _read(self) -> None:
        """Read what is new: trials begun since the last look, and those that had not ended."""
        study_id = self._stored.study_id
        newest_id = self._find_newest_id(study_id)
        first_look = self._newest_id < 0
        wanted = self._open_ids | self._ids_between(study_id, self._newest_id, newest_id)
        only = None if first_look else wanted
        read, unreadable = read_frozen(self._backend, study_id, only, _BEGUN)
        self._newest_id = newest_id
        seen = [*read, *(one.trial for one in unreadable)]
        ended = {trial._trial_id for trial in seen if trial.state.is_finished()}
        # The first look names none: it may find trials that were begun just now.
        self._open_ids = (wanted | {trial._trial_id for trial in seen}) - ended
        # A trial that was given back waits again: what it was is not what it is.
        numbers = {n for n, trial in self._trials.items() if trial._trial_id in wanted}
        for number in numbers:
            del self._trials[number]
        # A value that means something else would steer the search.
        kind = self._stored.spec.kind
        with self._backend.engine.connect() as connection:
            foreign = foreign_ids(connection, study_id, {trial._trial_id for trial in read})
        self._trials.update(
            {
                trial.number: trial
                for trial in read
                if trial._trial_id not in foreign and not strange_value(trial, kind)
            }
        )

    def _find_newest_id(self, study_id: int) -> int:
        query = sa.select(sa.func.max(trials.c.trial_id)).where(
            trials.c.study_id == study_id, ~IS_WAITING
        )
        with self._backend.engine.connect() as connection:
            newest_id = connection.scalar(query)
        return -1 if newest_id is None else int(newest_id)

    def _ids_between(self, study_id: int, after: int, until: int) -> set[int]:
        query = sa.select(trials.c.trial_id).where(
            trials.c.study_id == study_id, trials.c.trial_id > after, trials.c.trial_id <= until
        )
        if after < 0:
            # At the first look finished trials are read without being named.
            query = query.where(sa.or_(IS_WAITING, trials.c.state == TrialState.RUNNING))
        if until <= after:
            return set()
        with self._backend.engine.connect() as connection:
            return set(connection.scalars(query))
