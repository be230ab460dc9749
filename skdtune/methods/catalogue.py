"""From the settings of a method to its terms.

This is the only place that knows which methods there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from skdtune.describe.config import (
    BakeConfig,
    ByotConfig,
    CrossEntropyConfig,
    CsKdConfig,
    DdgsdConfig,
    DlbConfig,
    DrgConfig,
    DsrConfig,
    FrskdConfig,
    LabelSmoothingConfig,
    MethodConfig,
    PsKdConfig,
    TermConfig,
    TfKdRegConfig,
    TfKdSelfConfig,
    ZipfConfig,
)
from skdtune.methods.bake import Bake
from skdtune.methods.base import BuildContext, Term
from skdtune.methods.byot import Byot
from skdtune.methods.cross_entropy import CrossEntropy
from skdtune.methods.cs_kd import CsKd
from skdtune.methods.ddgsd import Ddgsd
from skdtune.methods.dlb import Dlb
from skdtune.methods.drg import Drg
from skdtune.methods.dsr import Dsr
from skdtune.methods.frskd import Frskd
from skdtune.methods.label_smoothing import LabelSmoothing
from skdtune.methods.ps_kd import PsKd
from skdtune.methods.tf_kd_reg import TfKdReg
from skdtune.methods.tf_kd_self import TfKdSelf
from skdtune.methods.zipf import Zipf

TermBuilder = Callable[[Any, BuildContext], Term]

#: For every settings class of a term, what builds the term from such settings.
METHODS: Mapping[type[TermConfig], TermBuilder] = MappingProxyType(
    {
        CrossEntropyConfig: CrossEntropy,
        LabelSmoothingConfig: LabelSmoothing,
        DrgConfig: Drg,
        DsrConfig: Dsr,
        PsKdConfig: PsKd,
        ByotConfig: Byot,
        CsKdConfig: CsKd,
        DlbConfig: Dlb,
        TfKdSelfConfig: TfKdSelf,
        TfKdRegConfig: TfKdReg,
        BakeConfig: Bake,
        DdgsdConfig: Ddgsd,
        FrskdConfig: Frskd,
        ZipfConfig: Zipf,
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
    return nn.ModuleDict(
        {
            name: METHODS[type(settings)](settings, context)
            for name, settings in config.terms().items()
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
