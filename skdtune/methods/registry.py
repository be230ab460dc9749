"""From the settings of a method to its terms.

This is the only place that knows which methods there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from skdtune.config import (
    CrossEntropyConfig,
    DrgConfig,
    DsrConfig,
    Frozen,
    LabelSmoothingConfig,
    MethodConfig,
)
from skdtune.methods.base import BuildContext, Term
from skdtune.methods.cross_entropy import CrossEntropy
from skdtune.methods.drg import Drg
from skdtune.methods.dsr import Dsr
from skdtune.methods.label_smoothing import LabelSmoothing

TermBuilder = Callable[[Any, BuildContext], Term]

#: For every settings class of a term, what builds the term from such settings.
METHODS: Mapping[type[Frozen], TermBuilder] = MappingProxyType(
    {
        CrossEntropyConfig: CrossEntropy,
        LabelSmoothingConfig: LabelSmoothing,
        DrgConfig: Drg,
        DsrConfig: Dsr,
    }
)


def build_terms(config: MethodConfig, context: BuildContext) -> nn.ModuleDict:
    """Build the terms of a method, the label term first.

    Source: arXiv 2305.09183; each term names its own source.

    Args:
        config: settings of the terms; those that are None are left out.
        context: what the terms need to know of the network.

    Returns:
        The terms under the names of their fields in ``MethodConfig``, in the order of the fields.

    Raises:
        ValueError: if the network cannot carry a term, for example for want of a stage.
    """
    chosen = {name: getattr(config, name) for name in MethodConfig.model_fields}
    return nn.ModuleDict(
        {
            name: METHODS[type(settings)](settings, context)
            for name, settings in chosen.items()
            if settings is not None
        }
    )


def required_stages(terms: nn.ModuleDict) -> tuple[int, ...]:
    """List the stages that must be tapped for some terms.

    Args:
        terms: terms from :func:`build_terms`.

    Returns:
        Every stage that at least one term reads, counted from 1, in ascending order.
    """
    stages = {stage for term in terms.values() if isinstance(term, Term) for stage in term.stages}
    return tuple(sorted(stages))
