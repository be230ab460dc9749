"""Find a preset by name or a study file by path, and lay it on what it ``extends``."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from skdtune.describe import dotted, preset_folder
from skdtune.describe.config import TrialConfig
from skdtune.describe.fixed_parameters import fix, still_searched
from skdtune.describe.kinds.catalogue import KINDS
from skdtune.describe.method_config import SETTINGS, UNUSABLE
from skdtune.describe.named_hooks import require_offered
from skdtune.describe.preset_folder import FAMILY_KEY
from skdtune.describe.spec import StudySpec, fill_stages, parse
from skdtune.describe.study_file import (
    YAML_ERRORS,
    ExcessError,
    StudyFile,
    load_yaml,
    read_yaml,
)
from skdtune.describe.term_config import TaughtTermConfig
from skdtune.errors import SpecError

#: Names that a study and all that it extends may extend together; a preset has five.
_MOST_EXTENDED = 200
#: Files that may be laid one on the other; a preset has three.
_MOST_GENERATIONS = 32


def load_spec(
    study: str,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    num_trials: int | None = None,
) -> StudySpec:
    """Read a preset or a study file, with overrides laid on it.

    Args:
        study: Name of a preset, or path of a YAML file.
        overrides: ``key=value`` pairs with dotted keys; values are read as YAML.
        name: Name of the study; default the preset's, or the file's without its ending.
        num_trials: Number of trials, instead of the file's.

    Raises:
        SpecError: One line with file, key, what was received and what is allowed.
    """
    file = find(study)
    raw = {"name": file.path.stem, **resolve(file)}
    if FAMILY_KEY in raw:
        raise SpecError(f"{study} is a family of studies: `load_family` reads it")
    changes = Changes(overrides=overrides)
    return _finish(raw, _source(study, changes), changes, name, num_trials)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a person changes of a preset or a study file."""

    overrides: Sequence[str] = ()
    """``key=value`` pairs with dotted keys; values are read as YAML."""

    fixed: Sequence[str] = ()
    """The same, of parameters that are taken out of the search."""

    notes: list[str] = field(default_factory=list)
    """What the person should know of these changes, one sentence each; filled while reading."""

    def note(self, sentences: Sequence[str]) -> None:
        """Take note of what the studies of a family may say each, once."""
        self.notes.extend(s for s in sentences if s not in self.notes)


def load_changed(
    study: str, changes: Changes, *, name: str | None = None, num_trials: int | None = None
) -> list[StudySpec]:
    """Read a study, or all of a family, with everything that `create-study` may change.

    Args:
        study: Name of a preset, or path of a YAML file.
        changes: What is changed; its notes are filled.
        name: Name of the study, or of the family.
        num_trials: Trials of each study.

    Raises:
        SpecError: One line with file, key, what was received and what is allowed.
    """
    file = find(study)
    raw = {"name": file.path.stem, **resolve(file)}
    if FAMILY_KEY in raw:
        return _family(study, file, raw, changes, name, num_trials)
    return [_finish(raw, _source(study, changes), changes, name, num_trials)]


#: What a study file says of its trials, and a single training has no use for.
_OF_SEARCHES = (
    *("search", "enqueue", "sampler", "pruner", "objective", "num_trials", "family"),
    *("faults", "hooks", "keep_networks"),
)


def load_single(
    study: str,
    changes: Changes,
    *,
    name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> StudySpec:
    """Read a study of which one training is wanted: its base configuration, nothing searched.

    Args:
        study: Name of a preset, or path of a YAML file.
        changes: What is changed; to set and to fix a field is the same here.
        name: What the training is called; default as the study.
        epochs: How long it is, whatever the study says.
        seed: Seed of the training; default that of the study.

    Raises:
        SpecError: One line with file, key, what was received and what is allowed.
    """
    file = find(study)
    raw = {"name": file.path.stem, **resolve(file)}
    if FAMILY_KEY in raw:
        first = next(iter(raw[FAMILY_KEY]), "")
        raise SpecError(
            f"{study} is a family of studies: name the one to train, for example {first}"
        )
    return single_of(raw, _source(study, changes), changes, name=name, epochs=epochs, seed=seed)


def single_of(
    raw: Mapping[str, Any],
    source: str,
    changes: Changes,
    *,
    name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> StudySpec:
    """Make a study of one training out of plain data; arguments as in `load_single`.

    Args:
        raw: The study.
        source: What an error names as the place.
        changes: What is changed.
        name: What the training is called.
        epochs: How long it is.
        seed: Its seed.

    Raises:
        SpecError: One line with the source, the key, what was received and what is allowed.
    """
    for option, pairs in (("--set", changes.overrides), ("--fix", changes.fixed)):
        for key in (_split_override(pair, option)[0] for pair in pairs):
            if key.partition(".")[0] in _OF_SEARCHES:
                raise SpecError(f"{option} {key}: a single training searches nothing")
    given = {"budget": None if epochs is None else {"epochs": epochs}, "seed": seed}
    raw = {**raw, **{key: value for key, value in given.items() if value is not None}}
    spec = _finish(dict(raw), source, changes, name, None, is_single=True)
    if spec.budget.is_open and spec.budget.seconds is not None:
        raise SpecError(
            f"{source}: budget.seconds: they are other epochs on every machine; say how long to "
            "train with --epochs"
        )
    return spec


def is_family(study: str) -> bool:
    """Tell whether a preset or file defines several studies to compare.

    Raises:
        SpecError: If there is no such preset or file, or it cannot be read.
    """
    return FAMILY_KEY in resolve(find(study))


def load_family(
    study: str,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    num_trials: int | None = None,
) -> list[StudySpec]:
    """Read the studies of a comparison: one for each method, all with an equal budget.

    Equal means the same number of trials and, in each, the same number of images: a method that
    sees every image twice in an epoch has half of the epochs.

    Args:
        study: Name of a preset, or path of a YAML file, with a list ``compare`` of presets.
        overrides: ``key=value`` pairs for all of them; none of a method, of which only one has it.
        name: Name of the family; its studies are called ``<name>-<method>``.
        num_trials: Trials of each study.

    Raises:
        SpecError: One line with file, key, what was received and what is allowed.
    """
    file = find(study)
    raw = resolve(file)
    if FAMILY_KEY not in raw:
        raise SpecError(f"{study} is one study, no family of them: `load_spec` reads it")
    return _family(study, file, raw, Changes(overrides=overrides), name, num_trials)


def _family(
    study: str,
    file: StudyFile,
    raw: dict[str, Any],
    changes: Changes,
    name: str | None,
    num_trials: int | None,
) -> list[StudySpec]:
    members = _members(raw.pop(FAMILY_KEY), file.path)
    # The studies of a family share every setting that an override may change.
    for option, pairs in (("--set", changes.overrides), ("--fix", changes.fixed)):
        for key in (_split_override(pair, option)[0] for pair in pairs):
            if f"{key}.".startswith(("method.", "search.method.")):
                raise SpecError(
                    f"{option} {key}: a family has several methods; create that study alone"
                )
            if key in ("name", "family"):
                raise SpecError(
                    f"{option} {key}: the studies of a family are named after it, by --name"
                )
    family, own = name or file.path.stem, ("name", "description")
    common = {key: value for key, value in raw.items() if key not in own}
    specs = []
    for short, member in members.items():
        merged = dotted.merge(resolve(_find_parent(member, file)), common)
        merged |= {"name": f"{family}-{short}", "family": family}
        source = f"{member} in {_source(study, changes)}"
        spec = _finish(merged, source, changes, None, num_trials)
        specs.append(_with_equal_images(spec))
    return specs


def _with_equal_images(spec: StudySpec) -> StudySpec:
    """Give a method that sees more images in an epoch so many epochs fewer."""
    if spec.method.images_per_anchor == 1 or spec.budget.images or spec.budget.seconds:
        return spec
    epochs = epochs_of_equal_images(spec, spec.budget.epochs)
    raw = dotted.put(spec.model_dump(mode="json"), "budget.epochs", epochs)
    return parse(StudySpec, raw, spec.name)


def epochs_of_equal_images(spec: StudySpec, plain_epochs: int) -> int:
    """Return the epochs in which a study sees as many images as plain epochs have.

    Args:
        spec: A study of a family.
        plain_epochs: Epochs of a method that sees each image once.

    Raises:
        SpecError: If that is no whole number of epochs.
    """
    factor = spec.method.images_per_anchor
    epochs, rest = divmod(plain_epochs, factor)
    if rest:
        down = plain_epochs - rest
        raise SpecError(
            f"budget.epochs: {spec.name} classifies {factor} images for every one of a plain "
            f"epoch, so equal budgets need a multiple of {factor}, received "
            f"{plain_epochs}; take {f'{down} or ' if down else ''}{down + factor}"
        )
    return epochs


def _members(compared: Any, path: Path) -> dict[str, str]:
    """Return the presets that are compared, by the part of the name that tells them apart."""
    if not isinstance(compared, list) or not all(isinstance(name, str) for name in compared):
        raise SpecError(f"{path.name}: {FAMILY_KEY}: expected a list of presets")
    words = [Path(name).stem.split("-") for name in compared]
    shared = 0
    while all(len(w) > shared + 1 for w in words) and len({w[shared] for w in words}) == 1:
        shared += 1
    members = {"-".join(w[shared:]): name for w, name in zip(words, compared, strict=True)}
    if len(members) < 2:
        raise SpecError(f"{path.name}: {FAMILY_KEY}: expected at least two different presets")
    return members


def _finish(
    raw: dict[str, Any],
    source: str,
    changes: Changes,
    name: str | None,
    num_trials: int | None,
    *,
    is_single: bool = False,
) -> StudySpec:
    """Lay what a person changes on what a file says, and validate it.

    Of a single training only then is the search left out: what is fixed is read by it.
    """
    overrides = _read_pairs(changes.overrides, "--set")
    for key, value in overrides:
        raw = dotted.put(raw, key, value)
    raw, notes = fix(raw, dict(_read_pairs(changes.fixed, "--fix")))
    if is_single:
        raw = {key: value for key, value in raw.items() if key not in _OF_SEARCHES}
        raw |= {"search": {}, "pruner": {"name": "none"}, "num_trials": 1}
        notes = []
    raw |= {"name": name} if name is not None else {}
    raw |= {"num_trials": num_trials} if num_trials is not None else {}
    if isinstance(raw.get("search"), Mapping):
        raw["search"] = {k: v for k, v in raw["search"].items() if v is not None}
    for key, kind in KINDS.items():
        if kind.written_by and raw.get(key) is not None:
            raise SpecError(f"{source}: {key}: {kind.written_by}")
    data = raw.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("root"), str):
        # Absolute: a worker does not run where the study was created.
        root = str(_expanded(data["root"]).absolute())
        raw = {**raw, "data": {**data, "root": root}}
    raw = with_teacher(fill_stages(raw), source)
    spec = parse(StudySpec, raw, source)
    require_offered(spec.hooks, source)
    changes.note([*still_searched(spec.search, spec.base_params(), overrides), *notes])
    return spec


def with_teacher(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Make the path of a trained teacher absolute, and note the file's checksum if it is here.

    Args:
        raw: A study as plain data.
        source: What an error names as the place.

    Raises:
        SpecError: If no teacher is named, or neither it nor its checksum is here.
    """
    method = raw.get("method")
    filled = dict(raw)
    for name, settings_class in SETTINGS.items():
        settings = method.get(name) if isinstance(method, Mapping) else None
        if issubclass(settings_class, TaughtTermConfig) and isinstance(settings, Mapping):
            teacher = _teacher(source, f"method.{name}", settings)
            filled = dotted.merge(filled, {"method": {name: teacher}})
    return filled


def _teacher(source: str, key: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the absolute path of a teacher and its checksum."""
    teacher = settings.get("teacher")
    if not isinstance(teacher, str) or not teacher:
        raise SpecError(
            f"{source}: {key}.teacher: needs a trained baseline of the same network; "
            "`skdtune export BASELINE -o FOLDER` makes one for "
            f"--set {key}.teacher=FOLDER/model.safetensors"
        )
    path = _expanded(teacher).absolute()
    known = settings.get("teacher_sha256")
    # Where the file is at hand its checksum is what it is, whatever somebody wrote down.
    checksum = known if known and not _is_file(path) else _checksum(path, source, key)
    if known and known != checksum:
        raise SpecError(
            f"{source}: {key}.teacher_sha256: that of {path} is {checksum}, received {known}"
        )
    return {"teacher": str(path), "teacher_sha256": checksum}


def _checksum(path: Path, source: str, key: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            f"{source}: {key}.teacher: {path} cannot be read ({reason}); where the "
            f"file lies on the workers only, --set {key}.teacher_sha256=... too"
        ) from None


def find(study: str) -> StudyFile:
    """Return the study file of a preset's name or of a path.

    Raises:
        SpecError: If there is none, or it cannot be read; names the nearest preset.
    """
    if _is_path(study):
        path = _expanded(study)
        if _is_file(path):
            return StudyFile(path, read_yaml(path))
        # A preset may be named as a file of the folder, where each had one of its own before.
        folder, name = os.path.split(os.path.abspath(path))
        in_folder = folder == os.path.abspath(preset_folder.presets_dir())
        composed = preset_folder.preset(name.removesuffix(".yaml")) if in_folder else None
        if composed is None:
            raise SpecError(f"no study file at {study}")
        return composed
    preset = preset_folder.preset(study)
    if preset is None:
        near = dotted.nearest(study, [preset.name for preset in preset_folder.list_presets()])
        hint = f"did you mean {near!r}? " if near else ""
        raise SpecError(f"unknown preset {study!r}; {hint}`skdtune studies` lists them")
    return preset


def resolve(file: StudyFile) -> dict[str, Any]:
    """Lay a study file on everything it extends, first to last.

    Raises:
        SpecError: If a parent is missing, a file extends itself, or there are too many of them.
    """
    return _Ancestry().resolve(file, ())


class _Ancestry:
    """What a study file extends, and what that extends: each file is read and laid out once."""

    def __init__(self) -> None:
        self._resolved: dict[Path, dict[str, Any]] = {}
        self._read = cache(read_yaml)
        self._num_extended = 0

    def resolve(self, file: StudyFile, children: tuple[Path, ...]) -> dict[str, Any]:
        """Lay a file on its parents.

        Args:
            file: The file.
            children: The files by which it was come to, the study's own first.
        """
        name, here = file.path.name, file.path.resolve()
        if here in children:
            raise SpecError(f"{name}: 'extends' leads back to {name}")
        if here in self._resolved:
            return self._resolved[here]
        extends = file.content.get("extends", [])
        parents = [extends] if isinstance(extends, str) else extends
        if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
            raise SpecError(f"{name}: extends: expected a name or a list of names")
        self._num_extended += len(parents)
        if self._num_extended > _MOST_EXTENDED or len(children) > _MOST_GENERATIONS:
            raise SpecError(
                f"{name}: extends: the study is laid on more than {_MOST_EXTENDED} files, or one "
                f"on the other more than {_MOST_GENERATIONS} deep; write some of them as one file"
            )
        merged: dict[str, Any] = {}
        for parent in parents:
            inherited = self.resolve(_find_parent(parent, file, self._read), (*children, here))
            # What a study is called and how it is described is its own, not its parents'.
            own = ("name", "description")
            merged = dotted.merge(merged, {k: v for k, v in inherited.items() if k not in own})
        merged = dotted.merge(merged, {k: v for k, v in file.content.items() if k != "extends"})
        self._resolved[here] = merged
        return merged


def _find_parent(
    parent: str, child: StudyFile, read: Callable[[Path], dict[str, Any]] = read_yaml
) -> StudyFile:
    name = parent.removesuffix(".yaml")
    shipped = preset_folder.preset(name) or preset_folder.part(name)
    path = child.path.parent / (parent if parent.endswith((".yaml", ".yml")) else f"{parent}.yaml")
    # A file beside the child comes first; but a file may have the name of the preset it extends.
    known = [] if shipped is None else [shipped.path.resolve(), child.path.resolve()]
    if _is_file(path) and path.resolve() not in known:
        return StudyFile(path, read(path))
    if shipped is None:
        raise SpecError(
            f"{child.path.name}: extends {parent!r}, but there is no such preset or file"
        )
    return shipped


def _is_path(study: str) -> bool:
    return study.endswith((".yaml", ".yml")) or "/" in study


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A name that is too long, or has a null byte in it, is nobody's.
        return False


def _read_pairs(pairs: Sequence[str], option: str) -> list[tuple[str, Any]]:
    """Read ``key=value`` pairs in the order in which they are laid on a study."""
    # Another kind (pruner.name) replaces its whole section, so it goes before the kind's settings.
    split = sorted((_split_override(pair, option) for pair in pairs), key=_names_no_kind)
    for key, _ in split:
        _check_key(key, option)
    return split


def _split_override(text: str, option: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not re.fullmatch(r"[\w.]+", key):
        raise SpecError(f"{option} {text}: expected key=value, for example optimizer.lr=0.05")
    try:
        return key, load_yaml(value)
    except ExcessError as error:
        raise SpecError(f"{option} {key}: {error.problem}, which is more than is read") from None
    except YAML_ERRORS:
        raise SpecError(f"{option} {text}: the value is not valid YAML") from None


def _names_no_kind(override: tuple[str, Any]) -> bool:
    return override[0].rpartition(".")[2] not in ("name", "type")


def _check_key(key: str, option: str) -> None:
    """Refuse a misspelt key before merging, so that the message can name the nearest one."""
    head, _, path = key.partition(".")
    if head == "method" and (why := UNUSABLE.get(path.partition(".")[0])):
        raise SpecError(f"{option} {key}: {why}")
    if head != "search" or not path:
        known = dotted.leaves(StudySpec)
        if key not in known and not any(leaf.startswith(f"{key}.") for leaf in known):
            raise SpecError(f"{option} {key}: unknown key; {_near_path(key, known)}")
        return
    # A parameter by its own path, perhaps with a field of its range.
    known = dotted.leaves(TrialConfig)
    parameter, _, field = path.rpartition(".")
    if parameter in known and path not in known and field not in dotted.RANGE_FIELDS:
        hint = dotted.did_you_mean(field, dotted.RANGE_FIELDS)
        raise SpecError(f"{option} {key}: unknown key; {hint}")
    searched = parameter if field in dotted.RANGE_FIELDS and path not in known else path
    if searched not in known:
        raise SpecError(f"{option} {key}: no field {searched!r}; {_near_path(searched, known)}")


def _near_path(key: str, known: set[str]) -> str:
    near = dotted.nearest(key, known)
    if near is None:
        same_leaf = [leaf for leaf in known if leaf.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
        near = same_leaf[0] if same_leaf else None
    return f"did you mean {near!r}?" if near else "`create-study --dry-run` prints all keys"


def _expanded(text: str) -> Path:
    """Replace a leading ``~``; that of nobody known is left alone, as by a shell."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _source(study: str, changes: Changes) -> str:
    base = study if _is_path(study) else f"{study}.yaml"
    given = {"--set": changes.overrides, "--fix": changes.fixed}
    options = " and ".join(option for option, pairs in given.items() if pairs)
    return f"{base} with {options}" if options else base
