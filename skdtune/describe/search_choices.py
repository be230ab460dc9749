"""The pruners and samplers that a study may name: unions of all that the catalogues have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Field, Tag

from skdtune.catalogues.pruners import PRUNERS
from skdtune.catalogues.samplers import SAMPLERS
from skdtune.describe.pruner_settings import PrunerSettings
from skdtune.describe.sampler_settings import SamplerSettings

#: The sampler of a study that names none.
DEFAULT_SAMPLER = "tpe"


def _sampler_named(settings: Any) -> str:
    """Return the name that a sampler's settings have, or would have by default."""
    if isinstance(settings, Mapping):
        return str(settings.get("name", DEFAULT_SAMPLER))
    return str(getattr(settings, "name", DEFAULT_SAMPLER))


if TYPE_CHECKING:
    PrunerConfig = PrunerSettings
    SamplerConfig = SamplerSettings
else:
    PrunerConfig = Annotated[
        Union[tuple(PRUNERS[name] for name in PRUNERS)],  # noqa: UP007
        Field(discriminator="name"),
    ]
    SamplerConfig = Annotated[
        Union[tuple(Annotated[SAMPLERS[name], Tag(name)] for name in SAMPLERS)],  # noqa: UP007
        Discriminator(_sampler_named),
    ]
