"""The study spec: what a study searches, how it is judged, and its canonical form and hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from inspect import getdoc
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from skdtune.catalogues.models import is_of_open_family, network_named, networks
from skdtune.catalogues.pruners import PRUNERS
from skdtune.catalogues.samplers import SAMPLERS
from skdtune.describe import dotted
from skdtune.describe.config import (
    BudgetConfig,
    DataConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    TrialConfig,
)
from skdtune.describe.faults import FaultsConfig
from skdtune.describe.identity import StudyName
from skdtune.describe.kinds.catalogue import KINDS, kind_of
from skdtune.describe.kinds.kind import Kind, Outline
from skdtune.describe.method_config import LABEL_TERMS, SETTINGS, UNUSABLE
from skdtune.describe.search_choices import DEFAULT_SAMPLER, PrunerConfig, SamplerConfig
from skdtune.describe.settings import LATER, Frozen, canonical, encode_stages
from skdtune.describe.space import Scalar, SearchSpace, StageSubsets, sampling_order
from skdtune.errors import SpecError

#: Version of the stored form; a reader refuses a newer one instead of guessing.
SPEC_FORMAT = 1

#: Fields that decide what a validation accuracy means: one value for all trials of a study.
NOT_SEARCHABLE = frozenset(
    {f"budget.{field}" for field in ("epochs", "images", "seconds", "planned")}
    | {
        f"data.{field}"
        for field in ("name", "root", "download", "val_fraction", "split_seed", "max_per_class")
    }
    # What a package said of its network where the study was created.
    | {"model.stages", "model.puts_out", "model.weights_sha256"}
    # What a worker proves of a teacher, for one, must hold for all trials.
    | {f"method.{name}.{field}" for name, s in SETTINGS.items() for field in s.not_searchable}
)

Settings = TypeVar("Settings", bound=Frozen)


class ObjectiveConfig(Frozen):
    """The one number a trial is judged by: validation accuracy, never the best epoch's."""

    of_first_release = True

    metric: Literal["val_accuracy"] = "val_accuracy"
    """Name of the metric; it is maximised."""

    window_epochs: int = Field(default=1, ge=1)
    """The value is the mean over so many last epochs; 1 is the last epoch itself."""


class StudyFields(Frozen):
    """A whole study as data: base configuration, search space, objective, pruner and budget."""

    of_first_release = True

    name: StudyName
    """Name of the study in the storage."""

    description: str = ""
    """One line for people."""

    family: str = ""
    """Name of the comparison that it was created for, together with the other methods' studies."""

    data: DataConfig
    """Base configuration: images."""

    model: ModelConfig
    """Base configuration: network."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Base configuration: optimiser."""

    budget: BudgetConfig = BudgetConfig()
    """Base configuration: length of a trial."""

    method: MethodConfig = MethodConfig()
    """Base configuration: loss terms."""

    search: SearchSpace = Field(default={})
    """Searched fields by their dotted path."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """What is maximised."""

    sampler: SamplerConfig = SAMPLERS[DEFAULT_SAMPLER]()
    """How parameters are proposed."""

    pruner: PrunerConfig = PRUNERS["median"]()
    """How weak trials are stopped early."""

    faults: FaultsConfig = FaultsConfig()
    """What happens to trials that fail."""

    num_trials: int = Field(default=50, ge=1, le=100_000)
    """Trials of the study, exactly."""

    keep_networks: Annotated[Literal["best", "all", "none"], LATER] = "best"
    """Trained networks that are kept as artifacts: ``best`` keeps that of each trial that is the
    best complete one when it ends; a final evaluation keeps all unless ``none``."""

    hooks: Annotated[tuple[str, ...], LATER] = ()
    """What accompanies each trial beside the built-in hooks: names that installed packages offer,
    in the order in which they are called."""

    enqueue: tuple[dict[str, Scalar], ...] = ()
    """Settings to try right after trial 0, which is always the base configuration itself."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed that every trial's seeds are derived from."""

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        base = self.base_config()
        self._check_space(base)
        self._check_base()
        self._check_enqueued()
        self.kind.require_consistent(self.search, self.pruner.name)
        epochs = self.budget.epochs
        if self.objective.window_epochs > epochs:
            raise ValueError(
                f"objective.window_epochs: must be at most budget.epochs ({epochs}), "
                f"received {self.objective.window_epochs}"
            )
        rungs = self.effective_pruner.judged_epochs(epochs)
        if self.pruner.name != "none" and epochs > 1 and not rungs:
            raise ValueError(
                f"pruner: no rung lies before the last of {epochs} epochs; lower its first rung "
                "or take pruner.name=none"
            )
        return self

    def _check_space(self, base: TrialConfig) -> None:
        raw = base.model_dump(mode="json")
        known = dotted.leaves(TrialConfig)
        for path, param in self.search.items():
            if path not in known or path == "seed":
                raise ValueError(
                    f"search.{path}: no such field; {dotted.did_you_mean(path, known)}"
                )
            if path in NOT_SEARCHABLE:
                raise ValueError(
                    f"search.{path}: cannot be searched, because trials could not be compared"
                )
            for parent in param.when:
                if parent not in known:
                    raise ValueError(
                        f"search.{path}: its 'when' names no field {parent!r}; "
                        f"{dotted.did_you_mean(parent, known)}"
                    )
            if not param.examples():
                raise ValueError(
                    f"search.{path}: it leaves nothing to choose from; name stages with 'of', or "
                    f"drop the parameter with search.{path}=null"
                )
            for value in param.examples():
                self._check_example(raw, path, value)
        self._check_every_model(raw)
        sampling_order(self.search)

    def _check_every_model(self, raw: Mapping[str, Any]) -> None:
        """Try every network that may be sampled with all that may be sampled along with it."""
        models = self.search.get("model.name")
        shapes = [p for p in self.search if p.startswith("model.") and p != "model.precision"]
        if self.model.weights_sha256 is not None and shapes:
            raise ValueError(
                f"search.{shapes[0]}: cannot be searched, because the weights of "
                "model.weights_sha256 fit one network only"
            )
        if models is None:
            return
        names = (self.model.name, *map(str, models.examples()))
        if unlisted := [name for name in names if name not in networks()]:
            raise ValueError(
                f"search.model.name: {unlisted[0]} cannot be searched, because a study keeps the "
                "stages of one network; create a study for each"
            )
        choices = {
            path: param
            for path, param in self.search.items()
            if path.endswith(".stages") or (path.startswith("model.") and param is not models)
        }
        for name in models.examples():
            chosen = dotted.put(raw, "model.name", name)
            for path, param in choices.items():
                wanted = param.when.get("model.name", (name,))
                if isinstance(wanted, tuple) and name not in wanted:
                    continue
                for value in param.examples():
                    self._check_example(chosen, path, value)

    def _check_example(self, raw: Mapping[str, Any], path: str, value: Scalar) -> None:
        section, _, _ = path.rpartition(".")
        if _lookup(raw, section) is None:
            raise ValueError(
                f"search.{path}: {section} is switched off (null); drop the parameter with "
                f"search.{path}=null"
            )
        try:
            _validate(TrialConfig, dotted.put(raw, path, value))
        except ValidationError as error:
            reason = _reason(error.errors()[0])
            raise ValueError(
                f"search.{path}: the value {value!r} is not valid: {reason}"
            ) from None

    def _check_base(self) -> None:
        """Refuse a base value that the sampler could not propose: trial 0 would not be it."""
        flat = self._flat_base()
        for path, param in self.search.items():
            value = flat.get(path)
            if value is not None and not param.contains(value):
                raise ValueError(
                    f"{path}: trial 0 would try {value}, which lies outside of its search range "
                    f"{param.describe()}; change one of them, or search.{path}=null"
                )

    def _flat_base(self) -> dict[str, Any]:
        """List the base configuration's fields as parameters would write them."""
        flat = dotted.flatten(self.base_config().model_dump(mode="json"))
        return {
            path: encode_stages(tuple(value))
            if isinstance(value, list) and isinstance(self.search.get(path), StageSubsets)
            else value
            for path, value in flat.items()
        }

    def _check_enqueued(self) -> None:
        for params in self.enqueue:
            for path, value in params.items():
                if path not in self.search:
                    raise ValueError(
                        f"enqueue: {path!r} is not searched; "
                        f"{dotted.did_you_mean(path, self.search)}"
                    )
                if not self.search[path].contains(value):
                    raise ValueError(
                        f"enqueue: {path}={value!r} lies outside of {self.search[path].describe()}"
                    )

    @model_serializer(mode="wrap")
    def _without_empty_hooks(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write and print a study without hooks as it was before there were any."""
        content: dict[str, Any] = write(self)
        if not self.hooks:
            content.pop("hooks", None)
        return content

    @property
    def kind(self) -> Kind:
        """How the trials of the study are made, judged, named and shown."""
        return kind_of({field: getattr(self, field) for field in KINDS})

    def called(self, name: str, source: str | None = None) -> StudySpec:
        """Return the same study under the names that it and the study behind it have now.

        Args:
            name: Name of the study, any that a storage allows.
            source: Name of the study that it trains trials of again; default as it is.
        """
        changed: dict[str, Any] = {"name": name}
        for field in KINDS:
            settings = getattr(self, field)
            if settings is not None and source is not None:
                changed[field] = settings.model_copy(update={"source": source})
        return self.model_copy(update=changed)

    def note(self) -> str:
        """Write the Markdown note that the dashboard shows with the study."""
        outline = Outline(
            epochs=self.budget.epochs,
            num_trials=self.num_trials,
            window_epochs=self.objective.window_epochs,
            sampler=self.sampler.name,
            pruner=self.pruner.name,
            search=self.search,
            base_params=self.base_params(),
        )
        last = f"Network `{self.model.name}`, data `{self.data.name}`, spec `{self.digest}`."
        lines = [f"## {self.name}", self.description, "", *self.kind.note(outline), "", last]
        return "\n".join(lines)

    def base_config(self) -> TrialConfig:
        """Return the configuration before any parameter is searched: the published setting."""
        return TrialConfig(
            data=self.data,
            model=self.model,
            optimizer=self.optimizer,
            budget=self.budget,
            method=self.method,
            seed=self.seed,
        )

    def base_params(self) -> dict[str, Scalar]:
        """Return the base configuration as parameters, for trial 0."""
        flat, fixed = self._flat_base(), self.fixed_values()
        params: dict[str, Scalar] = {}
        for path in sampling_order(self.search):
            value = flat.get(path)
            active = self.search[path].is_active({**fixed, **params})
            if value is not None and active:
                params[path] = value
        return params

    def fixed_values(self) -> dict[str, Any]:
        """Return the base values of the fields that are not searched, by dotted path."""
        flat = dotted.flatten(self.base_config().model_dump(mode="json"))
        return {path: value for path, value in flat.items() if path not in self.search}

    def trial_config(self, params: Mapping[str, Any], number: int) -> TrialConfig:
        """Resolve the parameters of one trial into its full, validated configuration.

        Args:
            params: Values by dotted path, as sampled; the kind of study may know better.
            number: Number of the trial, by which the kind of study gives it its seed: the same
                trial of two studies starts from the same weights where it can.

        Raises:
            SpecError: If the values do not make a valid configuration.
        """
        kind = self.kind
        raw = self.base_config().model_dump(mode="json")
        for path, value in kind.params_of(number, params).items():
            raw = dotted.put(raw, path, value)
        raw["seed"] = kind.seed_of(number, self.seed)
        return parse(TrialConfig, raw, f"trial {number} of {self.name}")

    def to_json(self) -> str:
        """Write the spec as it is stored: all defaults filled in, parameters in their order."""
        # With spaces: the dashboard shows it on the study's page and could not break it else.
        return json.dumps(self._content(), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """Hash of the canonical form (keys sorted): 16 hexadecimal digits of its SHA-256."""
        return _digest(self._content())

    def _content(self) -> dict[str, Any]:
        return {"format": SPEC_FORMAT, "spec": canonical(self)}

    @property
    def effective_pruner(self) -> PrunerConfig:
        """The pruner with its first judgement filled in, if the spec leaves it open.

        Before a multistep schedule first lowers the rate, the validation accuracy says next to
        nothing about where a trial will end; right after it, nearly all that it ever will
        (measured: ``benchmarks/search.py``). Other schedules keep the pruner's own default.
        """
        name = self.pruner.first_judgement
        drops = self.optimizer.drop_epochs(self.budget.epochs)
        is_searched = {"optimizer.schedule", "optimizer.milestones"} & self.search.keys()
        if name is None or getattr(self.pruner, name) is not None or is_searched or not drops:
            return self.pruner
        first = max(1, min(min(drops) + 1, self.budget.epochs - 1))
        return self.pruner.model_copy(update={name: first})

    @property
    def max_epochs(self) -> int:
        """Epochs that the whole study can cost at most."""
        return self.num_trials * self.budget.epochs


def _field_of(kind: type[Kind]) -> tuple[Any, Any]:
    """Return type and default of the field with the settings of a kind."""
    settings: Any = get_type_hints(kind)["settings"]
    summary = (getdoc(settings) or "").split("\n")[0]
    return Annotated[settings | None, LATER], Field(default=None, description=summary)


if TYPE_CHECKING:
    StudySpec = StudyFields
else:
    StudySpec = create_model(
        "StudySpec",
        __base__=StudyFields,
        __module__=__name__,
        __doc__=StudyFields.__doc__,
        **{field: _field_of(kind) for field, kind in KINDS.items()},
    )
    StudySpec.of_first_release = True


def fill_stages(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Let every choice of stages without ``of`` range over all that the backbone offers."""
    search = raw.get("search")
    model = raw.get("model")
    name = str(model.get("name")) if isinstance(model, Mapping) else ""
    if not isinstance(search, Mapping) or not (name in networks() or is_of_open_family(name)):
        return dict(raw)
    usable = list(range(1, network_named(name).num_stages))
    filled = {
        path: {**param, "of": usable}
        if isinstance(param, Mapping) and param.get("type") == "stages" and not param.get("of")
        else param
        for path, param in search.items()
    }
    return {**raw, "search": filled}


def stored_digest(text: str) -> str:
    """Return the hash of a spec as it was stored, whatever settings there are today.

    A setting that came later, with a default that changes nothing, must not make a study look as
    if somebody had tampered with it.

    Raises:
        SpecError: If the text is no JSON.
    """
    try:
        return _digest(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise SpecError("the stored text is not a study spec") from None


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def spec_from_json(text: str) -> StudySpec:
    """Read a spec back as it was stored with a study.

    Raises:
        SpecError: If the text is not a spec, or one of a newer format.
    """
    try:
        content = json.loads(text)
        stored_format, raw = content["format"], content["spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SpecError("the stored text is not a study spec") from None
    if stored_format != SPEC_FORMAT:
        raise SpecError(
            f"the study was written with spec format {stored_format!r}, this version reads "
            f"{SPEC_FORMAT}: upgrade skdtune"
        )
    return parse(StudySpec, _without_unknown_nulls(StudySpec, raw), "stored spec")


def _without_unknown_nulls(model: type[BaseModel], raw: Any, path: tuple[str, ...] = ()) -> Any:
    """Leave out keys that are null and unknown here: what is switched off need not be there."""
    if not isinstance(raw, Mapping):
        return raw
    known = dotted.field_names(model, path)
    return {
        key: _without_unknown_nulls(model, value, (*path, key)) if key in known else value
        for key, value in raw.items()
        if value is not None or key in known
    }


def parse(model: type[Settings], raw: Any, source: str) -> Settings:
    """Validate plain data as settings.

    Raises:
        SpecError: One line with the source, the key, what was received and what is allowed.
    """
    try:
        return _validate(model, raw)
    except ValidationError as error:
        raise SpecError(_describe(model, error, source)) from None
    except (TypeError, ValueError, RecursionError):
        # YAML can write what JSON cannot: dates as keys, lists that contain themselves.
        raise SpecError(f"{source}: holds a value that is no plain data") from None


def _validate(model: type[Settings], raw: Any) -> Settings:
    # JSON is the strictest common form: lists become tuples, nothing else is converted.
    return model.model_validate_json(json.dumps(raw, default=str))


def _describe(model: type[Frozen], error: ValidationError, source: str) -> str:
    errors = error.errors()
    first = errors[0]
    path = _clean_path(model, first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        *section, key = map(str, first["loc"])
        if section[-1:] == ["method"] and key in UNUSABLE:
            return f"{source}: {UNUSABLE[key]}"
        hint = dotted.did_you_mean(key, dotted.field_names(model, section))
        return f"{source}: {'.'.join(path)}: unknown key; {hint}{more}"
    reason = _reason(first)
    where = ".".join(path)
    # A check across several fields names its own key.
    prefix = f"{where}: " if where and not reason.startswith(where) else ""
    return f"{source}: {prefix}{reason}{more}"


def _clean_path(model: type[Frozen], loc: Sequence[int | str]) -> list[str]:
    """Drop the tags that tagged unions put into an error's location."""
    path: list[str] = []
    for part in map(str, loc):
        known = dotted.field_names(model, path)
        tagged = path and (path[-1] in ("label", "pruner", "sampler") or path[0] == "search")
        if tagged and part not in known and part in _TAGS:
            continue
        path.append(part)
    return path


_TAGS = {*LABEL_TERMS, *PRUNERS, *SAMPLERS} | {
    "float",
    "int",
    "choice",
    "stages",
}


def _reason(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("value_error", "assertion_error"):
        return message
    if error["type"] == "missing":
        return "required, but not given"
    if error["type"] == "union_tag_not_found":
        key = error["ctx"]["discriminator"]
        return f"received {_short(error['input'])}: its key {key} is missing"
    if error["type"] == "union_tag_invalid":
        return f"received {error['ctx']['tag']!r}: must be one of {error['ctx']['expected_tags']}"
    message = message[:1].lower() + message[1:]
    return f"received {_short(error.get('input'))}: {message.replace('input should', 'must')}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lookup(raw: Mapping[str, Any], path: str) -> Any:
    value: Any = raw
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
