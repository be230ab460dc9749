"""How long ``skdtune --help`` takes beside a bare interpreter, and what it loads.

    python benchmarks/startup.py [--runs 15] [--json]

The two are timed in turn, as whole processes, so that a machine that changes its speed changes
both. The median is printed, and the median of the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

HEAVY = ("torch", "torchvision", "optuna", "sqlalchemy", "pydantic", "numpy", "rich", "sklearn")
COMMANDS = {
    "skdtune --help": ["-m", "skdtune", "--help"],
    "skdtune studies": ["-m", "skdtune", "studies"],
    "python -c pass": ["-c", "pass"],
}


def wall_ms(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def loaded_modules() -> list[str]:
    """Return the heavy packages that ``skdtune --help`` has loaded when it ends."""
    code = (
        "import sys, contextlib, io\n"
        "from skdtune.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def measure(runs: int) -> dict[str, object]:
    for arguments in COMMANDS.values():
        wall_ms(arguments)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            times[name].append(wall_ms(arguments))
    pairs = zip(times["skdtune --help"], times["python -c pass"], strict=True)
    return {
        "python": platform.python_version(),
        "runs": runs,
        "median_ms": {name: round(statistics.median(ms), 1) for name, ms in times.items()},
        "ratio_help_to_pass": round(statistics.median(a / b for a, b in pairs), 2),
        "heavy_modules_loaded_by_help": loaded_modules(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.runs)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:<30} {value}")


if __name__ == "__main__":
    main()
