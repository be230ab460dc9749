"""Read the source of the package: who imports whom, and which helpers have one use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
Trees = dict[str, ast.Module]


def read(root: Path) -> Trees:
    """Every module of the package, by its path in skdtune/; a node's parent is its `up`."""
    trees = {}
    for path in sorted((root / "skdtune").rglob("*.py")):
        tree = trees[str(path.relative_to(root / "skdtune"))] = ast.parse(path.read_text())
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                child.up = node  # type: ignore[attr-defined]
    return trees


def above(node: Any) -> Iterator[ast.AST]:
    """The nodes around a node, from the inside."""
    while (node := getattr(node, "up", None)) is not None:
        yield node


def at(path: str, line: int) -> str:
    """A place in the source."""
    return f"skdtune/{path}:{line}"


def room_of(path: str) -> str:
    """The folder at the top of skdtune/ in which a file lies."""
    return path.partition("/")[0] if "/" in path else "(top)"


def imports(trees: Trees) -> dict[str, dict[str, int]]:
    """Who imports whom: 0 when the module runs, 1 only for types, 2 only inside a function."""
    names = {
        ".".join(["skdtune", *Path(path).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in trees
        if path != "__init__.py"
    }
    edges: dict[str, dict[str, int]] = {name: {} for name in names}
    for name, path in names.items():
        for node in ast.walk(trees[path]):
            targets = set()
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = {target if target in names else node.module for target in whole}
            elif isinstance(node, ast.Import):
                targets = {alias.name for alias in node.names}
            around = list(above(node))
            tests = [ast.unparse(outer.test) for outer in around if isinstance(outer, ast.If)]
            kind = int(any("TYPE_CHECKING" in test for test in tests))
            if any(isinstance(outer, Function) for outer in around):
                kind = 2
            for target in targets & names.keys() - {name}:
                edges[name][target] = min(kind, edges[name].get(target, kind))
    return edges


def circles(edges: dict[str, dict[str, int]], most: int) -> list[list[str]]:
    """Groups of modules of which each reaches every other one over such imports."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        reach[start], todo = set(), [start]
        while todo:
            fresh = {to for to, kind in edges[todo.pop()].items() if kind <= most} - reach[start]
            reach[start] |= fresh
            todo += fresh
    groups = {tuple(sorted(to for to in reach[name] if name in reach[to])) for name in edges}
    return sorted(list(group) for group in groups if len(group) > 1)


def overridden(classes: list[ast.ClassDef]) -> set[tuple[str, str]]:
    """Class and method, where a base class or a subclass has a method of that name, too."""
    bases = {
        c.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in c.bases}
        for c in classes
    }
    methods = {c.name: {f.name for f in c.body if isinstance(f, Function)} for c in classes}

    def ancestors(name: str) -> set[str]:
        direct = bases.get(name, set())
        return direct.union(*map(ancestors, direct))

    return {
        (one, method)
        for name in bases
        for base in ancestors(name) & bases.keys()
        for method in methods[name] & methods[base]
        for one in (name, base)
    }


def helpers(trees: Trees) -> list[dict[str, Any]]:
    """Private functions and methods with one use."""
    nodes = {path: list(ast.walk(tree)) for path, tree in trees.items()}
    shared = overridden(
        [n for tree in nodes.values() for n in tree if isinstance(n, ast.ClassDef)]
    )
    private: list[tuple[str, Any]] = [
        (path, node)
        for path, tree in nodes.items()
        for node in tree
        if isinstance(node, Function) and node.name.startswith("_") and node.name[-2:] != "__"
        if {ast.unparse(d) for d in node.decorator_list} <= {"staticmethod", "classmethod"}
    ]
    rows = []
    for path, node in private:
        places = [path]
        if isinstance(node.up, ast.ClassDef):
            if (node.up.name, node.name) in shared:
                continue
            # Where another class has a private method of that name, it is that one's.
            others = {p for p, other in private if other.name == node.name and p != path}
            places = [p for p in nodes if p not in others]
        uses: list[Any] = [
            use
            for place in places
            for use in nodes[place]
            if node.name in (getattr(use, "attr", None), getattr(use, "id", None))
            and node not in above(use)
        ]
        if len(uses) == 1:
            called = getattr(uses[0].up, "func", None) is uses[0]
            rows.append({"at": at(path, node.lineno), "name": node.name, "callback": not called})
    return rows


def hands_on_engine(node: Any) -> bool:
    """Whether a node is a lambda for a patient call that passes an engine."""
    call = getattr(node, "up", None)
    if not isinstance(node, ast.Lambda) or not isinstance(call, ast.Call):
        return False
    name = ast.unparse(call.func).lower()
    passed = [a for c in ast.walk(node.body) if isinstance(c, ast.Call) for a in c.args]
    engines = [a for a in passed if ast.unparse(a).split(".")[-1].strip("_") == "engine"]
    return ("patience" in name or "call" in name) and bool(engines)
