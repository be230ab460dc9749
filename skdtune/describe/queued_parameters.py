"""Parameters of a trial that a person queues: named as they are typed, checked before it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skdtune.describe import dotted
from skdtune.describe.config import TrialConfig
from skdtune.describe.fixed_parameters import conditions, written
from skdtune.describe.space import AnyParam, Scalar, sampling_order
from skdtune.describe.spec import StudySpec
from skdtune.describe.study_file import YAML_ERRORS, load_yaml
from skdtune.errors import InputError


def read_queued(
    spec: StudySpec, pairs: Sequence[str], like: Mapping[str, Any] | None = None
) -> dict[str, Scalar]:
    """Read the parameters of a trial to queue; those that are not named are sampled later.

    Args:
        spec: The study.
        pairs: ``path=value`` as a person types them.
        like: Parameters to start from; those that the named ones switch off are left out.

    Raises:
        InputError: One line on the first that is unknown, out of its range, or has no effect.
    """
    named: dict[str, Scalar] = {}
    for pair in pairs:
        path, sign, text = pair.partition("=")
        if not sign:
            raise InputError(f"{pair}: expected KEY=VALUE, for example optimizer.lr=0.05")
        if path in named:
            raise InputError(f"{path} is given twice; give it once")
        named[path] = _read(spec, path, text)
    params = _laid_on(spec, named, like or {})
    # What each value is by itself, the study has checked; this is what they are together.
    spec.trial_config(params, 0)
    return params


def left_to_sample(spec: StudySpec, params: Mapping[str, Any]) -> list[str]:
    """List the parameters that will, or may, be sampled for a trial that is queued."""
    fixed = spec.fixed_values()
    left: list[str] = []
    for path in sampling_order(spec.search):
        open_parents = [parent for parent in spec.search[path].when if parent in left]
        if path not in params and (
            open_parents or spec.search[path].is_active({**fixed, **params})
        ):
            left.append(path)
    return left


def _laid_on(
    spec: StudySpec, named: Mapping[str, Scalar], like: Mapping[str, Any]
) -> dict[str, Scalar]:
    """Lay what was named on what a trial had; refuse what the sampler would never ask for."""
    fixed = spec.fixed_values()
    params: dict[str, Scalar] = {}
    for path in sampling_order(spec.search):
        param = spec.search[path]
        known = {**fixed, **params}
        if path in named and not param.is_active(known):
            unnamed = [parent for parent in param.when if parent not in known]
            hint = f"; name {' and '.join(unnamed)}, too" if unnamed else ""
            raise InputError(f"{path} matters only where {conditions(param)}{hint}")
        value = named.get(path, like.get(path))
        if value is not None and param.is_active(known):
            params[path] = value if path in named else _checked(param, path, value)
    return params


def _read(spec: StudySpec, path: str, text: str) -> Scalar:
    if path not in spec.search:
        flat = dotted.flatten(spec.base_config().model_dump(mode="json"))
        if path in flat:
            raise InputError(
                f"{path} is not searched in {spec.name}: it is {written(flat[path])} in all trials"
            )
        known = spec.search or dotted.leaves(TrialConfig)
        raise InputError(
            f"{path}: no such parameter in {spec.name}; {dotted.did_you_mean(path, known)}"
        )
    try:
        value = load_yaml(text)
    except YAML_ERRORS:
        value = text
    stored = spec.search[path].as_stored(value)
    # A word that YAML takes for something else, such as `on`, is still a word.
    return _checked(spec.search[path], path, text if stored is None else value)


def _checked(param: AnyParam, path: str, value: Any) -> Scalar:
    stored = param.as_stored(value)
    if stored is None:
        raise InputError(f"{path}={value}: expected {param.describe()}")
    return stored
