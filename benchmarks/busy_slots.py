"""How busy slots are while they train a family: study by study, and all studies at once.

    python benchmarks/busy_slots.py [--slots 4] [--trials 5] [--epochs 60 120 240] [--json]

The real ``skdtune launch`` on real processes, once for each study in turn, as a family was trained
before a worker could serve several, and once for all of them. Trials of scikit-learn's digits
differ in length from study to study. A slot is busy from the claim of a trial to its end, as the
storage tells; the time counts from the first claim to the last end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = ("data.max_per_class=20", "data.batch_size=32", "model.width=8", "pruner={name: none}")


def create(folder: Path, epochs: list[int], trials: int) -> list[str]:
    """Make a family whose studies differ in the length of their trials."""
    from skdtune.describe.presets import load_spec
    from skdtune.queue.stored_study import create_studies

    specs = [
        load_spec(
            "digits-baseline",
            overrides=[*SETTINGS, f"budget.epochs={length}", "family=slots"],
            name=f"slots-{length}",
            num_trials=trials,
        )
        for length in epochs
    ]
    create_studies(specs, storage=f"sqlite:///{folder / 'busy.db'}")
    return [spec.name for spec in specs]


def launch(folder: Path, slots: int, *names: str) -> None:
    """Train studies as a person would."""
    command = [sys.executable, "-m", "skdtune", "-q", "launch", *names, "--gpus", "none"]
    storage = f"sqlite:///{folder / 'busy.db'}"
    # An SQLite file in the home: nothing of a person's is touched.
    environment = {**os.environ, "SKDTUNE_HOME": str(folder), "SKDTUNE_STORAGE": storage}
    subprocess.run([*command, "--workers", str(slots)], env=environment, check=True)


def busy(folder: Path, slots: int) -> dict[str, float]:
    """Read from the storage how long trials were in hand."""
    import sqlalchemy as sa

    from skdtune.queue.schema import events

    engine = sa.create_engine(f"sqlite:///{folder / 'busy.db'}")
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(events.c.trial_id, events.c.kind, events.c.final, events.c.at)
        ).all()
    claimed = {row.trial_id: row.at for row in rows if row.kind == "claimed"}
    ended = {row.trial_id: row.at for row in rows if row.final}
    took_s = max(ended.values()) - min(claimed.values())
    in_hand_s = sum(ended[trial_id] - claimed[trial_id] for trial_id in ended)
    return {"took_s": round(took_s, 1), "busy_share": round(in_hand_s / (slots * took_s), 3)}


def measure(slots: int, trials: int, epochs: list[int]) -> dict[str, dict[str, float]]:
    """Train the family in both ways, each in a storage of its own."""
    measured: dict[str, dict[str, float]] = {}
    for way in ("study by study", "all at once"):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            names = create(folder, epochs, trials)
            start = time.perf_counter()
            for some in [[name] for name in names] if way == "study by study" else [names]:
                launch(folder, slots, *some)
            wall_s = round(time.perf_counter() - start, 1)
            measured[way] = {**busy(folder, slots), "wall_s": wall_s}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs="+", default=[60, 120, 240])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured: dict[str, Any] = measure(options.slots, options.trials, options.epochs)
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    for way, values in measured.items():
        share = f"{values['busy_share']:.0%} of {options.slots} slots busy"
        print(f"{way:<16} {share}, {values['took_s']} s from first claim to last end")


if __name__ == "__main__":
    main()
