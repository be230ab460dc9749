"""Packages that a test installs for a process: a folder on the path, with what pip would leave."""

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
            offers: For each group of entry points, ``module:attribute`` by name.
            version: Version of the package.
        """
        metadata = f"{name.replace('-', '_')}-{version}.dist-info"
        groups = [
            "\n".join([f"[{group}]", *(f"{key} = {target}" for key, target in entries.items())])
            for group, entries in offers.items()
        ]
        written = {
            **files,
            f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{metadata}/entry_points.txt": "\n".join(groups) + "\n",
        }
        for path, content in written.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(content), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What a process with the packages has beside the environment of this one."""
        paths = (str(self.folder), os.environ.get("PYTHONPATH", ""))
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "SKDTUNE_HOME": str(self.home)}

    def run(self, *arguments: str, packages: bool = True) -> subprocess.CompletedProcess[str]:
        """Run skdtune in a process of its own, with the packages or without them."""
        return self.python("-m", "skdtune", *arguments, packages=packages)

    def python(self, *arguments: str, packages: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python in a process of its own, with the packages or without them."""
        environment = {
            **os.environ,
            "SKDTUNE_HOME": str(self.home),
            **(self.environment if packages else {}),
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
            timeout=230,
            check=False,
        )

    def printed(self, *arguments: str, packages: bool = True) -> str:
        """Run Python as :meth:`python` does, to the good end, and return what it printed."""
        done = self.python(*arguments, packages=packages)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout + done.stderr
