"""No room knows the name of one method, data set or network but its catalogue and its own files.

The names follow from the catalogues. Code names an entry where an identifier has its key among its
words, ``DRG_STAGES``, or is a class called after it, ``CsKdConfig``, or where a string is the key.
What people read names it in any spelling, ``CS-KD`` for ``cs_kd``.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import skdtune
from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import MODELS, Family

PACKAGE = Path(skdtune.__file__).parent

#: Keys that are a word of their own: in prose, and as a name of something else, they say nothing
#: of an entry. A string that is nothing but the key does.
WORDS = {
    "cross_entropy": "the function of torch, and the loss of that name",
    "digits": "what numbers are written with",
}

#: Where a name may stand in words (never in code) beside its own files, and why.
ALLOWED = {
    "__init__.py": "an example with the name of a preset",
    "cli/main.py": "examples with the name of a preset, in the help",
    "cli/status.py": "examples with the name of a preset, in the help and in an empty list",
    "describe/config.py": "an example of a dotted path",
    "analysis/evaluation_results.py": "an example of a name made of two",
    "methods/functional.py": "names the source of a formula that several methods share",
    "views/report_page/sections.py": "says to readers what a figure was drawn for",
    "models/heads/bifpn.py": "names its source, and a network to compare sizes with",
    "models/layers/convolution.py": "names the network on which it was measured",
}


#: What strings are made of: one that is formatted is a token before Python 3.12, later several.
STRINGS = {
    getattr(tokenize, kind)
    for kind in ("STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE")
    if hasattr(tokenize, kind)
}


def own_files(target: str) -> str:
    """Return the file, or the folder with a slash, that belongs to what a catalogue line names."""
    parts = target.partition(":")[0].split(".")[1:]
    # A method is a folder; a data set or a family is a file.
    return "/".join(parts[:2]) + "/" if parts[0] == "methods" else "/".join(parts) + ".py"


@cache
def names() -> Mapping[str, str]:
    """Return every name of the catalogues with the file or folder that it belongs to."""
    lines = {**METHODS.built_in, **DATASETS.built_in}
    owners = {name: own_files(str(target)) for name, target in lines.items()}
    for line, family in MODELS.built_in.items():
        assert isinstance(family, Family)
        owners |= dict.fromkeys((line, *family.networks), own_files(family.build))
    return owners


def _in_prose(name: str) -> re.Pattern[str]:
    """Match a name in any spelling; an address is a source and names nothing."""
    return re.compile(rf"(?<![\w/~]){'[-_ ]?'.join(name.split('_'))}(?!\w)", re.IGNORECASE)


def _in_code(name: str) -> re.Pattern[str]:
    """Match a name among the words of an identifier, or the class that is called after it."""
    camel = "".join(part.title() for part in name.split("_"))
    return re.compile(rf"(^|_)(?i:{name})(_|$)|{camel}(?![a-z0-9])")


def _said(token: tokenize.TokenInfo) -> set[str]:
    """Return the string that a token stands for, or those that an f-string is made of."""
    if token.type != tokenize.STRING:
        return {token.string}
    nodes = ast.walk(ast.parse(token.string, mode="eval"))
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return {v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values}


def named(source: str, *, prose: bool) -> Iterator[tuple[int, str]]:
    """Yield the line and the name where a source names an entry of a catalogue.

    Args:
        source: Python.
        prose: Look into comments and the words of strings, too.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        is_text = token.type in STRINGS or token.type == tokenize.COMMENT
        said = _said(token) if token.type in STRINGS else set()
        for name in names():
            in_code = token.type == tokenize.NAME and _in_code(name).search(text)
            in_prose = prose and is_text and _in_prose(name).search(text)
            if name in said or (name not in WORDS and (in_code or in_prose)):
                yield token.start[0], name


def wrongly_named(file: str, source: str) -> list[str]:
    """List where a file names what does not belong to it."""
    if file.startswith("catalogues/"):
        return []
    # What a method has in common with another one, its own files may say in words.
    of_a_method = file.startswith("methods/") and file.count("/") > 1
    return [
        f"skdtune/{file}:{row} names {name!r}"
        for row, name in named(source, prose=not of_a_method and file not in ALLOWED)
        if not file.startswith(names()[name])
    ]


FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_names_nothing_that_has_files_of_its_own(file: str) -> None:
    assert not wrongly_named(file, (PACKAGE / file).read_text())


@pytest.mark.parametrize("file", ALLOWED)
def test_an_exception_has_a_use(file: str) -> None:
    assert list(named((PACKAGE / file).read_text(), prose=True))


@pytest.mark.parametrize(
    "line",
    [
        "if config.method.drg:",
        "has_drg = True",
        "DRG_STAGES = (1, 2)",
        "from skdtune.methods.drg.settings import DrgConfig",
        "isinstance(term, CsKdConfig)",
        "method['tf_kd_self']",
        'if data.name == "digits":',
        'if name == "cross_entropy":',
        'if name == "dsr":',
        "name = 'byot'",
        'name = rb"frskd"',
        'name = """drg"""',
        'name = f"dlb{suffix}"',
        "name = f'{prefix}digits'",
        "def is_cifar10(): ...",
        'layout = LAYOUTS["resnet18"]',
        "# as CS-KD does",
        '"""What TF-KD self remembers."""',
    ],
)
def test_a_name_in_another_room_is_seen(line: str) -> None:
    body = f"{line}\n    pass\n" if line.startswith("if ") else f"{line}\n"
    assert wrongly_named("training/trainer.py", body)


@pytest.mark.parametrize(
    "line",
    [
        "loss = F.cross_entropy(logits_BK, labels_B)",
        "round(value, digits=3)",
        '"""A number in three digits."""',
        "# see github.com/yxgeee/BAKE",
        "self.baked = zipfile.ZipFile(path)",
        "config.method.terms()",
    ],
)
def test_what_only_looks_like_a_name_is_none(line: str) -> None:
    assert not wrongly_named("training/trainer.py", f"{line}\n")


def test_a_method_may_name_itself_and_no_other_one() -> None:
    assert not wrongly_named("methods/drg/term.py", "from skdtune.methods.drg import formulas\n")
    assert not wrongly_named("methods/drg/term.py", "# simpler than DSR\n")
    assert wrongly_named("methods/drg/term.py", "from skdtune.methods.dsr import formulas\n")
