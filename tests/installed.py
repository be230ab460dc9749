"""Packages that offer something to skdtune, installed into a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent


@dataclass(frozen=True)
class Site:
    """A folder of installed packages, and the home that skdtune runs in."""

    folder: Path
    home: Path

    def install(
        self,
        name: str,
        files: Mapping[str, str],
        offers: Mapping[str, Mapping[str, str]],
        version: str = "1.2",
    ) -> None:
        """Lay a package out as an installer does.

        Args:
            name: Name of the package.
            files: Content by path.
            offers: For each group of entry points the target by name.
            version: Version of the package.
        """
        for path, content in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(content))
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        lines = [
            line
            for group, points in offers.items()
            for line in (f"[{group}]", *(f"{n} = {target}" for n, target in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, packages: bool = True) -> subprocess.CompletedProcess[str]:
        """Run skdtune in a process of its own, with the packages or without them."""
        return self.python("-m", "skdtune", *arguments, packages=packages)

    def python(self, *arguments: str, packages: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python in a process of its own, with the packages or without them."""
        paths = [*([str(self.folder)] if packages else []), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "SKDTUNE_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }
        environment.pop("SKDTUNE_STORAGE", None)
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
            timeout=200,
        )
