from __future__ import annotations

from typing import Any, get_args

import pytest
from torch import nn

from skdtune.describe.config import MethodConfig
from skdtune.describe.method_config import LABEL_TERMS, SETTINGS
from skdtune.describe.settings import Frozen
from skdtune.describe.term_config import TaughtTermConfig
from skdtune.methods.base import BuildContext, Term
from skdtune.methods.catalogue import build_terms, required_stages, term_class
from skdtune.methods.drg.settings import DrgConfig
from skdtune.methods.dsr.settings import DsrConfig
from skdtune.models.description import StageShape

CONTEXT = BuildContext(tuple(StageShape(4, 8 // 2**i, 8 // 2**i) for i in range(4)), 5)


def settings_classes(annotation: Any) -> set[type[Frozen]]:
    """Find every settings class in the annotation of a field, however it is wrapped."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return {annotation}
    return set().union(*(settings_classes(inner) for inner in get_args(annotation)))


def test_the_search_for_settings_classes_sees_through_unions() -> None:
    assert settings_classes(DrgConfig | DsrConfig | None) == {DrgConfig, DsrConfig}


def test_every_term_of_the_configuration_can_be_built() -> None:
    fields = MethodConfig.model_fields
    label_terms = settings_classes(fields["label"].annotation)
    assert label_terms == set(LABEL_TERMS.values())
    for name, field in fields.items():
        assert settings_classes(field.annotation), name
    offered = set().union(*(settings_classes(field.annotation) for field in fields.values()))
    assert offered == set(SETTINGS.values())


# The one that needs a file is built in the contract tests.
@pytest.mark.parametrize(
    "name", [name for name, s in SETTINGS.items() if not issubclass(s, TaughtTermConfig)]
)
def test_settings_build_terms(name: str) -> None:
    settings = SETTINGS[name]()
    assert isinstance(term_class(type(settings))(settings, CONTEXT), Term)


def test_terms_come_in_the_order_of_the_fields() -> None:
    config = MethodConfig(dsr=DsrConfig(), drg=DrgConfig())
    assert list(build_terms(config, CONTEXT)) == ["label", "drg", "dsr"]
    assert list(build_terms(MethodConfig(dsr=DsrConfig()), CONTEXT)) == ["label", "dsr"]


def test_the_baseline_is_one_term_without_parameters() -> None:
    terms = build_terms(MethodConfig(), CONTEXT)
    assert list(terms) == ["label"]
    assert not list(terms.parameters())
    assert required_stages(terms) == ()


def test_required_stages_are_a_sorted_union() -> None:
    terms = build_terms(MethodConfig(drg=DrgConfig(stages=(1, 3))), CONTEXT)
    assert required_stages(terms) == (1, 3)
    other = Term()
    other.stages = (2, 1)
    terms["other"] = other
    terms["not_a_term"] = nn.Identity()
    assert required_stages(terms) == (1, 2, 3)
