"""Packages that a test installs for a process: a folder on the path, with what pip would leave."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path,
    name: str,
    *,
    modules: Mapping[str, str],
    offers: Mapping[str, Mapping[str, str]],
    version: str = "1.0",
) -> dict[str, str]:
    """Write a package and return the environment of a process that has it beside its own.

    Args:
        folder: Where packages of the test lie.
        name: Name of the package.
        modules: Source of each of its modules, by name.
        offers: For each group of entry points, ``module:attribute`` by name.
        version: Version of the package.
    """
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    lines = [
        line
        for group, entries in offers.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([path] if path else [])])}
