"""What is stored, as people look at it; read only.

``skdtune.results`` is also what the front door calls the function that reads a study. Python puts
an imported room in the place of a name: so the room can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skdtune.results.study_results import StudyResults


class _CallableRoom(ModuleType):
    def __call__(self, study: str, *, storage: str | None = None) -> StudyResults:
        from skdtune.results.study_results import results

        return results(study, storage=storage)


sys.modules[__name__].__class__ = _CallableRoom
