"""How many epochs a search needs: samplers and pruners replayed over recorded learning curves.

    python benchmarks/search.py [--seeds 50] [--workers 1 4 16] [--processes 2] [--json]

The table (``benchmarks/curves.py``) holds the curves of random configurations of the DRG + DSR
space. A replay runs skdtune's own samplers and pruners on it, with simulated workers that train at
one epoch per unit of time: the random sampler draws configurations without replacement, TPE takes
the one nearest to what it proposes. A search selects by validation accuracy among the trials it
ran to their end, as ``skdtune best`` does, and is scored by the test accuracy of what it selected.

- ``epochs to 0.5``: epochs of all workers together until the selected configuration is within 0.5
  points of the best in the table, median over the seeds, and the share of seeds that got there.
- ``regret``: points between the best of the table and the selected one after a given number of
  epochs, mean and standard error over the seeds.

``from`` is when the first judgement is made; without it ASHA's and Hyperband's first rung is the
epochs over eta squared. ``short`` spends no epoch on cut-off schedules: it trains configurations
on a ninth of the epochs with the schedule scaled to it, the best third of these anew on a third,
and the best third of those anew on all.

The published setting (configuration 0) is left out of the replay: it is the first trial of every
study, and a search in which it was the answer would measure nothing. Where it stands is printed.
"""

from __future__ import annotations

import argparse
import copy
import csv
import datetime
import heapq
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.identity import derive_seed
from skdtune.describe.space import FloatRange, IntRange, sample
from skdtune.describe.spec import StudySpec
from skdtune.search.pruners.asha import AshaConfig
from skdtune.search.pruners.hyperband import HyperbandConfig
from skdtune.search.pruners.median import MedianConfig
from skdtune.search.pruners.none import NoPruner
from skdtune.search.samplers.tpe import TpeConfig

TABLE = Path(__file__).parent / "data" / "curves.csv"
NEAR = 0.005
#: Epochs of a search, in full trials, after which the regret is printed.
CHECKPOINTS = (5, 10, 20, 40)


@dataclass(frozen=True)
class Curve:
    """One training: validation accuracy after every epoch, test accuracy after the last."""

    val: tuple[float, ...]
    test: float


@dataclass(frozen=True)
class Table:
    """All configurations, each with its curve for every length of the schedule."""

    params: list[dict[str, Any]]
    curves: list[dict[int, Curve]]
    published: dict[int, Curve]

    @property
    def epochs(self) -> int:
        return max(self.curves[0])

    @property
    def best(self) -> float:
        return max(curves[self.epochs].test for curves in self.curves)


@lru_cache(maxsize=1)
def load_table(path: Path) -> Table:
    found: dict[int, tuple[dict[str, Any], dict[int, Curve]]] = {}
    spec = space_spec()
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            params = {k: read(spec, k, row[k]) for k in spec.search if row[k] != ""}
            val = [float(v) for k, v in row.items() if k.startswith("val_") and v]
            # A loss that became NaN ended the curve: the trial is pruned there, and worth nothing.
            test = float(row["test_accuracy"] or 0)
            entry = found.setdefault(int(row["config"]), (params, {}))
            entry[1][int(row["epochs"])] = Curve(tuple(val), test)
    lengths = {epochs for _, curves in found.values() for epochs in curves}
    whole = {n: entry for n, entry in sorted(found.items()) if set(entry[1]) == lengths}
    published = whole.pop(0)[1]
    return Table([p for p, _ in whole.values()], [c for _, c in whole.values()], published)


@lru_cache(maxsize=1)
def space_spec() -> StudySpec:
    from skdtune.describe.presets import load_spec

    return load_spec("imagefolder-drg-dsr", overrides=["data.root=/", "model.name=resnet8"])


def read(spec: StudySpec, path: str, text: str) -> Any:
    param = spec.search[path]
    return float(text) if isinstance(param, (FloatRange, IntRange)) else text


# --- policies -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """A sampler and a pruner, or the short schedules, by the name in the table."""

    sampler: str
    pruner: str

    @property
    def name(self) -> str:
        return f"{self.sampler}, {self.pruner}"

    def settings(self, epochs: int) -> Any:
        kind, _, rest = self.pruner.partition(" ")
        number, _, share = f" {rest}".partition(" from ")
        first = math.ceil(epochs * int(share[:-1]) / 100) if share else None
        if kind == "median":
            return MedianConfig(warmup_epochs=first)
        if kind == "asha":
            return AshaConfig(name="asha", reduction_factor=int(number), min_epochs=first)
        if kind == "hyperband":
            return HyperbandConfig(name="hyperband", reduction_factor=int(number))
        return NoPruner(name="none")


PRUNERS = (
    *("none", "median from 25%", "median from 33%", "median from 50%", "median from 75%"),
    *("asha 2", "asha 3", "asha 4", "asha 2 from 33%", "asha 3 from 33%", "asha 4 from 33%"),
    *("hyperband 3", "short 3"),
)
POLICIES = tuple(Policy(sampler, pruner) for pruner in PRUNERS for sampler in ("random", "tpe"))


@dataclass
class Search:
    """One simulated search: what ran, what it cost, what it would have selected when."""

    table: Table
    policy: Policy
    seed: int
    spent: int = 0
    trace: list[tuple[int, float]] = field(default_factory=list)
    paused: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Trials of ``short`` that wait for a promotion: their epochs, and their accuracy there."""
    _best_val: float = -1.0

    def __post_init__(self) -> None:
        config = self.policy.settings(self.table.epochs)
        self._rungs = config.judged_epochs(self.table.epochs)
        name = f"replay-{self.seed}"
        self.study = optuna.create_study(
            study_name=name,
            direction="maximize",
            pruner=config.build(self.table.epochs),
        )
        self._storage: Any = self.study._storage
        self._left = list(range(len(self.table.params)))
        np.random.default_rng(derive_seed(self.seed, "order")).shuffle(self._left)
        self._points = np.array([point(params) for params in self.table.params])

    def propose(self) -> tuple[int, int] | None:
        """Take the next configuration out of the table: its trial and its row."""
        if not self._left:
            return None
        distributions = {path: distribution(path) for path in space_spec().search}
        number = len(self.study.get_trials(deepcopy=False))
        if self.policy.sampler == "random":
            row = self._left.pop()
        else:
            row = self._nearest(self._proposal(number))
            self._left.remove(row)
        params = self.table.params[row]
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params=params,
            distributions={path: distributions[path] for path in params},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        trial_id = self._storage.create_new_trial(self.study._study_id, template)
        return trial_id, row

    def _proposal(self, number: int) -> dict[str, Any]:
        """Ask skdtune's sampler, in a copy of the study that may hold a trial nobody runs."""
        spec = space_spec()
        sampler = TpeConfig().build(self.seed, number)
        # The name and the pruner decide which trials of Hyperband's brackets TPE looks at.
        scratch = optuna.create_study(
            study_name=self.study.study_name,
            direction="maximize",
            sampler=sampler,
            pruner=self.study.pruner,
        )
        storage: Any = scratch._storage
        for trial in self.study.get_trials(deepcopy=False):
            storage.create_new_trial(scratch._study_id, self._as_seen(trial))
        return dict(sample(spec.search, scratch.ask(), spec.fixed_values()))

    def _as_seen(self, trial: FrozenTrial) -> FrozenTrial:
        """Show a trial that waits for a promotion as one that was pruned, with what it reached."""
        if trial._trial_id not in self.paused:
            return trial
        epochs, value = self.paused[trial._trial_id]
        seen = copy.copy(trial)
        seen.state, seen.values = TrialState.PRUNED, [value]
        seen.intermediate_values = {epochs - 1: value}
        seen.datetime_complete = seen.datetime_start or datetime.datetime.now()
        return seen

    def _nearest(self, params: dict[str, Any]) -> int:
        left = np.array(self._left)
        distances = np.square(self._points[left] - point(params)).sum(axis=1)
        return int(left[distances.argmin()])

    def report(self, trial_id: int, epoch: int, value: float) -> bool:
        """Store an epoch, counted from 1; True if the pruner stops the trial there."""
        self._storage.set_trial_intermediate_value(trial_id, epoch - 1, value)
        if epoch not in self._rungs:
            return False
        trial = self._storage.get_trial(trial_id)
        return bool(self.study.pruner.prune(self.study, trial))

    def finish(self, trial_id: int, curve: Curve, epochs: int, *, pruned: bool) -> None:
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        value = curve.val[epochs - 1] if epochs else 0.0
        self._storage.set_trial_state_values(trial_id, state, [value])
        if not pruned:
            self.select(value, curve.test)

    def select(self, value: float, test: float) -> None:
        if value > self._best_val:
            self._best_val = value
            self.trace.append((self.spent, test))


def distribution(path: str) -> Any:
    param: Any = space_spec().search[path]
    if isinstance(param, (FloatRange, IntRange)):
        return optuna.distributions.FloatDistribution(param.low, param.high, log=param.log)
    return optuna.distributions.CategoricalDistribution(param.options())


def point(params: dict[str, Any]) -> list[float]:
    """Place a configuration in the unit cube; an option, or a missing one, is a corner."""
    found: list[float] = []
    for path, param in space_spec().search.items():
        value = params.get(path)
        if isinstance(param, (FloatRange, IntRange)):
            scale = math.log if param.log else float
            low, high = scale(param.low), scale(param.high)
            found.append(0.5 if value is None else (scale(value) - low) / (high - low))
        else:
            # Two different options are one apart, whatever their number.
            found.extend((value == option) / math.sqrt(2) for option in param.options())
    return found


def simulate(path: Path, policy: Policy, workers: int, seed: int, budget: int) -> dict[str, Any]:
    """Run one search for so many epochs of all workers together."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(load_table(path), policy, seed)
    run = run_short if policy.pruner.startswith("short") else run_full
    run(search, workers, budget)
    return score(search)


def run_full(search: Search, workers: int, budget: int) -> None:
    """Let workers train epoch by epoch; what an epoch brought is known when it has ended."""
    epochs = search.table.epochs
    clock = [(0, worker) for worker in range(workers)]
    hands: dict[int, tuple[int, int, int]] = {}
    while clock and search.spent < budget:
        now, worker = heapq.heappop(clock)
        if worker in hands:
            trial_id, row, done = hands.pop(worker)
            curve, done = search.table.curves[row][epochs], done + 1
            search.spent += 1
            broken = done > len(curve.val)
            pruned = broken or search.report(trial_id, done, curve.val[done - 1])
            if pruned or done == epochs:
                search.finish(trial_id, curve, min(done, len(curve.val)), pruned=pruned)
            else:
                hands[worker] = (trial_id, row, done)
        if worker not in hands:
            proposed = search.propose()
            if proposed is None:
                continue
            hands[worker] = (*proposed, 0)
        heapq.heappush(clock, (now + 1, worker))


def run_short(search: Search, workers: int, budget: int) -> None:
    """Successive halving over schedules of their own, asynchronously: promote, else begin."""
    lengths = sorted(search.table.curves[0])
    rungs: list[list[tuple[float, int, int]]] = [[] for _ in lengths]
    promoted: list[set[int]] = [set() for _ in lengths]
    clock = [(0, worker) for worker in range(workers)]
    hands: dict[int, tuple[int, int, int, int]] = {}
    while clock and search.spent < budget:
        now, worker = heapq.heappop(clock)
        if worker in hands:
            trial_id, row, rung, done = hands.pop(worker)
            search.spent += 1
            if done + 1 < lengths[rung]:
                hands[worker] = (trial_id, row, rung, done + 1)
            else:
                end_rung(search, rungs, rung, trial_id, row)
        if worker not in hands:
            job = next_short(search, rungs, promoted)
            if job is None:
                continue
            search.paused.pop(job[0], None)
            hands[worker] = (*job, 0)
        heapq.heappush(clock, (now + 1, worker))


def end_rung(
    search: Search, rungs: list[list[tuple[float, int, int]]], rung: int, trial_id: int, row: int
) -> None:
    lengths = sorted(search.table.curves[0])
    curve = search.table.curves[row][lengths[rung]]
    value = curve.val[-1] if len(curve.val) == lengths[rung] else 0.0
    if rung == len(lengths) - 1:
        search.finish(trial_id, curve, len(curve.val), pruned=value == 0.0)
    else:
        rungs[rung].append((value, row, trial_id))
        search.paused[trial_id] = (lengths[rung], value)


def next_short(
    search: Search, rungs: list[list[tuple[float, int, int]]], promoted: list[set[int]]
) -> tuple[int, int, int] | None:
    for rung in range(len(rungs) - 2, -1, -1):
        ranked = sorted(rungs[rung], reverse=True)
        for _, row, trial_id in ranked[: len(ranked) // 3]:
            if row not in promoted[rung]:
                promoted[rung].add(row)
                return trial_id, row, rung + 1
    proposed = search.propose()
    return None if proposed is None else (*proposed, 0)


def score(search: Search) -> dict[str, Any]:
    best, epochs = search.table.best, search.table.epochs
    reached = [spent for spent, test in search.trace if test >= best - NEAR]
    regrets = []
    for trials in CHECKPOINTS:
        known = [test for spent, test in search.trace if spent <= trials * epochs]
        regrets.append(100 * (best - known[-1]) if known else math.nan)
    return {"reached": reached[0] if reached else math.inf, "regrets": regrets}


# --- the table ----------------------------------------------------------------------------------


def replay(
    path: Path, seeds: int, workers: Sequence[int], processes: int
) -> Iterator[dict[str, Any]]:
    table = load_table(path)
    # Until the table is used up: without pruning, every configuration trained to its end.
    budget = len(table.params) * table.epochs
    with ProcessPoolExecutor(processes) as pool:
        for count in workers:
            for policy in POLICIES:
                futures = [
                    pool.submit(simulate, path, policy, count, seed, budget)
                    for seed in range(seeds)
                ]
                scores = [future.result() for future in futures]
                print(f"{policy.name}, {count} workers", file=sys.stderr)
                yield summary(policy, count, scores)


def summary(policy: Policy, workers: int, scores: list[dict[str, Any]]) -> dict[str, Any]:
    reached = [each["reached"] for each in scores]
    median = statistics.median(reached)
    low, high = bootstrap_median(reached)
    regrets = [regret_at(scores, index) for index in range(len(CHECKPOINTS))]
    return {
        "policy": policy.name,
        "workers": workers,
        "epochs_to_near": finite(median),
        "epochs_to_near_95": [finite(low), finite(high)],
        "share_near": round(sum(math.isfinite(r) for r in reached) / len(reached), 2),
        "regret": dict(zip(CHECKPOINTS, regrets, strict=True)),
    }


def regret_at(scores: list[dict[str, Any]], index: int) -> list[float | None]:
    """Mean and standard error over the seeds; None where some search had nothing to select."""
    values = [each["regrets"][index] for each in scores]
    if any(math.isnan(value) for value in values):
        return [None, None]
    error = statistics.stdev(values) / math.sqrt(len(values))
    return [round(statistics.fmean(values), 2), round(error, 2)]


def bootstrap_median(values: list[float]) -> tuple[float, float]:
    """Return a 95% interval of the median, from resampled seeds."""
    generator = np.random.default_rng(0)
    medians = sorted(
        float(statistics.median(generator.choice(values, len(values)))) for _ in range(1000)
    )
    return medians[24], medians[974]


def finite(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None


def describe_table(table: Table) -> dict[str, Any]:
    """Say how good the configurations are, and how early a curve tells."""
    from scipy.stats import spearmanr

    epochs = table.epochs
    tests = [curves[epochs].test for curves in table.curves]
    ranks = {}
    for share in (1 / 9, 1 / 4, 1 / 3, 1 / 2, 3 / 4):
        at = max(1, round(share * epochs))
        early = [value_at(c[epochs], at) for c in table.curves]
        ranks[f"epoch {at} of {epochs}"] = early
    for length in sorted(table.curves[0])[:-1]:
        short = [(0.0, *c[length].val)[-1] for c in table.curves]
        ranks[f"a schedule of {length}"] = short
    published = table.published[epochs].test
    return {
        "configurations": len(tests),
        "test_accuracy": {
            "best": max(tests),
            "median": round(statistics.median(tests), 4),
            "worst": min(tests),
            "published": published,
            "better_than_published": sum(test > published for test in tests),
            "within_0.5_of_best": sum(test >= max(tests) - NEAR for test in tests),
        },
        "spearman_with_final_test": {
            name: round(float(spearmanr(values, tests).statistic), 3)
            for name, values in ranks.items()
        },
    }


def value_at(curve: Curve, epoch: int) -> float:
    """Return the validation accuracy after an epoch, 0 if the training had broken by then."""
    return curve.val[epoch - 1] if epoch <= len(curve.val) else 0.0


def print_rows(described: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(json.dumps(described, indent=2))
    points = " ".join(f"{f'regret@{trials}':>13}" for trials in CHECKPOINTS)
    print(f"\n{'policy':<24} {'workers':>7} {'epochs to 0.5':>20} {'share':>6} {points}")
    for row in rows:
        low, high = row["epochs_to_near_95"]
        middle = f"{row['epochs_to_near'] or '-'} [{low or '-'}, {high or '-'}]"
        regrets = " ".join(
            f"{'-':>13}" if mean is None else f"{mean:>7.2f} ±{error:>4.2f}"
            for mean, error in row["regret"].values()
        )
        print(
            f"{row['policy']:<24} {row['workers']:>7} {middle:>20} {row['share_near']:>6} "
            f"{regrets}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    described = describe_table(load_table(options.table))
    rows = list(replay(options.table, options.seeds, options.workers, options.processes))
    if options.json:
        print(json.dumps({"table": described, "replay": rows}, indent=2))
        return
    print_rows(described, rows)


if __name__ == "__main__":
    main()
