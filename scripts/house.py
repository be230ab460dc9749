"""Measure the house from its source, so that numbers in a note can be repeated.

    python scripts/house.py [--json] [--list] [--way] [--root DIR]

* circles: groups of modules of skdtune that import each other, by what runs at import; with
  imports for types, too; with imports inside functions, too. The front door,
  skdtune/__init__.py, which only names what lies in the rooms, is left out.
* helpers: private functions and methods (`_name`, no dunder) that are named once outside of
  their own body: a function in its module, a method in the package. One that is called was
  split off; one that is handed over as a value is a callback, and told apart. Not counted are
  those with a decorator (properties, caches, context managers; staticmethod and classmethod do
  not matter), and methods whose name a base class or a subclass in the package defines, too.
  Shares are of all functions and methods.
* rooms: files and non-blank lines by folder of skdtune/; the files at its top are one room.
* layers: those of import-linter, and how many of their modules are single files.
* evaluation: lines outside of describe/ that ask whether something called `evaluation` is
  there: compared with None, or used as a condition.
* lambdas: lambdas given to a call whose name has `patience` or `call` in it, that themselves
  pass something called `engine`.
* way: the stops of one trial that is trained for it, as house_way.py counts them.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import house_way
from house_source import (
    Function,
    at,
    circles,
    hands_on_engine,
    helpers,
    imports,
    read,
    room_of,
)

KINDS = ("at run time", "with types", "with functions")
EVALUATION = re.compile(
    r"\bevaluation\)? is (not )?None"
    r"|\b(if|not|and|or|while|bool\() ?[\w.]*\.evaluation\b(?![.(\[])"
)


def measure(root: Path) -> dict[str, Any]:
    """All that is counted without running anything."""
    trees = read(root)
    edges = imports(trees)
    nodes: list[tuple[str, Any]] = [
        (path, node) for path, tree in trees.items() for node in ast.walk(tree)
    ]
    texts = {path: (root / "skdtune" / path).read_text().splitlines() for path in trees}
    rooms: dict[str, Counter[str]] = {}
    for path, text in texts.items():
        lines = sum(bool(line.strip()) for line in text)
        rooms.setdefault(room_of(path), Counter()).update(files=1, lines=lines)
    for path, node in nodes:
        rooms[room_of(path)]["functions"] += isinstance(node, Function)
    private = helpers(trees)
    for helper in private:
        kind = "callbacks" if helper["callback"] else "helpers"
        rooms[room_of(helper["at"].removeprefix("skdtune/"))][kind] += 1
    total = sum(rooms.values(), Counter())
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    modules = [root / m.strip().replace(".", "/") for layer in layers for m in layer.split("|")]
    return {
        "circles": {kind: circles(edges, most) for most, kind in enumerate(KINDS)},
        "rooms": {name: dict(counts) for name, counts in sorted(rooms.items())},
        "total": {
            **total,
            "helpers_percent": round(100 * total["helpers"] / total["functions"], 1),
        },
        "files_at_the_top": sorted(path for path in trees if "/" not in path),
        "layers": {
            "all": len(layers),
            "modules": len(modules),
            "single_files": sum(m.with_suffix(".py").exists() for m in modules),
        },
        "helpers": private,
        "evaluation": [
            at(path, number)
            for path, text in texts.items()
            for number, line in enumerate(text, 1)
            if EVALUATION.search(line) and not path.startswith("describe/")
        ],
        "lambdas": [at(path, node.lineno) for path, node in nodes if hands_on_engine(node)],
    }


def show(house: dict[str, Any], everything: bool) -> None:
    """Print what was measured; with places where everything is wanted."""
    for kind, groups in house["circles"].items():
        print(f"circles of imports, {kind}: {len(groups)}", *map(" <-> ".join, groups), sep="\n  ")
    columns = ("files", "lines", "functions", "helpers", "callbacks")
    print(f"{'room':12}", *(f"{column:>10}" for column in columns), f"{'helpers %':>10}")
    for name, counts in [*house["rooms"].items(), ("all", house["total"])]:
        share = 100 * counts.get("helpers", 0) / max(counts.get("functions", 0), 1)
        print(f"{name:12}", *(f"{counts.get(c, 0):10}" for c in columns), f"{share:10.1f}")
    print(f"files at the top of skdtune/: {len(house['files_at_the_top'])}")
    layers = house["layers"]
    print(
        f"layers: {layers['all']} of {layers['modules']} modules; files: {layers['single_files']}"
    )
    for name in ("evaluation", "lambdas"):
        files = {place.partition(":")[0] for place in house[name]}
        print(f"{name}: {len(house[name])} in {len(files)} files")
    if everything:
        print(
            *(f"{h['at']} {h['name']}" + " (callback)" * h["callback"] for h in house["helpers"]),
            *house["evaluation"],
            *house["lambdas"],
            sep="\n",
        )
    if way := house.get("way"):
        print(f"way: {len(way['stops'])} stops, {way['back_in_loop']} times back in the loop")
        print(f"files on the way: {len(way['files'])}; rooms: {', '.join(way['rooms'])}")
        if everything:
            print(*way["stops"], sep="\n")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--list", action="store_true", help="print the places, too")
    parser.add_argument("--way", action="store_true", help="train a trial, and follow it")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    root = options.root.resolve()
    house = measure(root)
    if options.way:
        loops = [
            p
            for p, tree in read(root).items()
            if any(isinstance(n, ast.ClassDef) and n.name == "Worker" for n in tree.body)
        ]
        house["way"] = house_way.way(root, loops[0])
    if options.json:
        print(json.dumps(house, indent=1))
    else:
        show(house, options.list)


if __name__ == "__main__":
    main()
