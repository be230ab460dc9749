"""What the dashboard says of a study where optuna-dashboard's own answer would be wrong.

It takes every study for a search: in one that tries no parameter it divides by their number, and
of a final evaluation it shows the luckiest seed as the best trial. To rename a study it makes
another one, without spec and leases.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from skdtune.describe.kinds.catalogue import picks_best
from skdtune.queue import schema
from skdtune.queue.best_trial import best_so_far
from skdtune.queue.study_attributes import raw_spec, stored_specs
from skdtune.views.dashboard.door import Environ, Refusal, StartResponse, WsgiApplication
from skdtune.views.dashboard.rewriting import rewrite

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_PATH = re.compile(r"/api/studies/(\d{1,9})(|/param_importances|/rename)/*")


@dataclass(frozen=True)
class StudyPages:
    """The application, with answers that fit the kind of a study."""

    application: WsgiApplication
    storage: RDBStorage

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        found = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        answer = self.application
        if found is not None:
            study_id, asked = int(found[1]), (environ["REQUEST_METHOD"], found[2])
            if asked == ("GET", "/param_importances"):
                if objectives := self._objectives_without_params(study_id):
                    start_response("200 OK", [("Content-Type", "application/json")])
                    return [json.dumps({"param_importances": [[]] * objectives}).encode()]
            elif asked == ("GET", "") and (spec := self._spec(study_id)) is not None:
                best = self._best(study_id) if picks_best(spec) else None
                answer = functools.partial(self._with_best_trial, best)
            elif asked == ("POST", "/rename") and self._spec(study_id) is not None:
                answer = _rename_otherwise
        return answer(environ, start_response)

    def _spec(self, study_id: int) -> dict[str, Any] | None:
        """Return the spec of a study as it is stored; None if it has none."""
        specs = stored_specs()
        query = sa.select(specs.c.value_json).where(specs.c.study_id == study_id)
        with self.storage.engine.connect() as connection:
            text = connection.scalar(query)
        return None if text is None else raw_spec(text) or {}

    def _objectives_without_params(self, study_id: int) -> int:
        """Count the objectives of a study that tries no parameter; 0 for all others."""
        directions, params, trials = schema.study_directions, schema.params, schema.trials
        counting = [state for state in schema.FINISHED if state.name != "FAIL"]
        tried = (
            sa.select(params.c.param_id)
            .join(trials, trials.c.trial_id == params.c.trial_id)
            .where(trials.c.study_id == study_id, trials.c.state.in_(counting))
        )
        query = (
            sa.select(sa.func.count())
            .select_from(directions)
            .where(directions.c.study_id == study_id, ~tried.exists())
        )
        with self.storage.engine.connect() as connection:
            return connection.scalar(query) or 0

    def _best(self, study_id: int) -> int | None:
        """Return the number of the best trial; a foreign one is never the best."""
        with self.storage.engine.connect() as connection:
            best = best_so_far(connection, study_id)
        return None if best is None else best[0]

    def _with_best_trial(
        self, best: int | None, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer as the application does, but for the trial that is called the best."""

        def change(body: bytes) -> bytes:
            study = json.loads(body)
            listed = [*study.get("best_trials", []), *study.get("trials", [])]
            own = [trial for trial in listed if trial.get("number") == best]
            return json.dumps({**study, "best_trials": own[:1]}).encode()

        return rewrite(self.application, environ, start_response, change)


_rename_otherwise = Refusal(
    "409 Conflict",
    "a study of skdtune is renamed with `skdtune rename`: the dashboard would make a copy without "
    "its spec and leases",
)
