"""From the settings of a method to its terms."""

from __future__ import annotations

from functools import partial

from torch import nn

from skdtune.catalogues.catalogue import imported, load_target
from skdtune.describe.config import MethodConfig
from skdtune.describe.term_config import TermConfig
from skdtune.errors import InputError
from skdtune.methods.base import BuildContext, Term


def term_class(settings: type[TermConfig]) -> type[Term]:
    """Return the class of the term that is built from settings of a class.

    Raises:
        InputError: If it cannot be imported, or is no term.
    """
    term = imported(f"the term {settings.term}", partial(load_target, settings.term))
    if not (isinstance(term, type) and issubclass(term, Term)):
        raise InputError(f"{settings.term} is no term: derive it from Term")
    return term


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
        InputError: if a term of a package cannot be imported.
    """
    return nn.ModuleDict(
        {
            name: term_class(type(settings))(settings, context)
            for name, settings in config.terms().items()
        }
    )


def required_stages(terms: nn.ModuleDict) -> tuple[int, ...]:
    """List the stages that must be read for some terms.

    Args:
        terms: terms from :func:`build_terms`.

    Returns:
        Every stage that at least one term reads, counted from 1, in ascending order.
    """
    stages = {stage for term in terms.values() if isinstance(term, Term) for stage in term.stages}
    return tuple(sorted(stages))
