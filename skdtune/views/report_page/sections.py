"""The sections of a report, each with one sentence on how to read it.

A section without anything to draw says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skdtune.analysis.mixture import mixtures
from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.tables import format_duration
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.space import Condition, StageSubsets
from skdtune.views.report_page import figures, parameter_figures
from skdtune.views.report_page.figure_parts import short
from skdtune.views.report_page.figure_sheet import FigureSheet
from skdtune.views.report_page.markup import escaped, paragraph, table
from skdtune.views.report_page.repeat import repetition, study_file
from skdtune.views.report_page.words import (
    FACT_NAMES,
    MISSING,
    candidates,
    mean_and_sd,
    quantity,
    setting,
    share,
    total,
    verdict,
)

if TYPE_CHECKING:
    from skdtune.analysis.tables import Table

_MAX_REASON = 300
_MAX_NUMBERS = 12


def headline(studies: Sequence[StudyRecord]) -> str:
    """Say per study what came out and what it cost."""
    searches = [study for study in studies if study.picks_best]
    evaluations = [study for study in studies if not study.picks_best]
    parts = [_searches(searches)] if searches else []
    parts += [_evaluation(study) for study in evaluations]
    # Before anybody reads a number of it.
    mixed = [said for study in studies for said in mixtures(study.name, study.trials)]
    parts = [paragraph(sentence, "lead") for sentence in mixed] + parts
    return _section("result", "Result", *parts)


def _searches(studies: Sequence[StudyRecord]) -> str:
    read = (
        "Best trial and published setting (trial 0) of each study with the standard error of an "
        "accuracy on that many images; trials by state as complete / pruned / failed."
    )
    headers = (
        "study",
        "best trial",
        "validation accuracy",
        "published (trial 0)",
        "difference",
        "trials",
        "open",
        *_COST_HEADERS,
    )
    rows = [_search_row(study) for study in studies]
    verdicts = "".join(
        f"<li><b>{escaped(study.name)}</b>: {escaped(verdict(study))}</li>" for study in studies
    )
    return (
        paragraph(read, "read")
        + table(headers, rows, right=range(1, len(headers)))
        + f'<ul class="verdicts">{verdicts}</ul>'
    )


_COST_HEADERS = ("epochs", "images", "device time")


def _search_row(study: StudyRecord) -> tuple[str, ...]:
    best, published, counts = study.best, study.published, study.counts
    points = MISSING
    if best is not None and published is not None and best != published:
        points = f"{((best.value or 0.0) - (published.value or 0.0)) * 100:+.2f} points"
    return (
        study.name,
        MISSING if best is None else str(best.number),
        _accuracy(study, best),
        _accuracy(study, published),
        points,
        " / ".join(str(counts[state]) for state in ("complete", "pruned", "failed")),
        str(counts["running"] + counts["waiting"]),
        *_cost(study),
    )


def _accuracy(study: StudyRecord, trial: TrialRecord | None) -> str:
    if trial is None:
        return MISSING
    return share(trial.value, study.standard_error(trial.value))


def _cost(study: StudyRecord) -> tuple[str, str, str]:
    begun = [trial for trial in study.trials if trial.epochs]
    images = total([trial.images for trial in begun])
    seconds = total([trial.device_seconds for trial in study.trials])
    known = all(trial.images is not None for trial in begun)
    least = "" if known else "at least "
    return (
        f"{sum(trial.epochs for trial in begun):,}",
        MISSING if images is None else least + quantity(images),
        MISSING if seconds is None else format_duration(seconds),
    )


def _evaluation(study: StudyRecord) -> str:
    source = study.spec.kind.source or ""
    read = (
        f"{study.name}: trials of {source} trained again on all training images; mean and "
        f"standard deviation of the {study.value_name} over seeds."
    )
    rows = [
        (f"trial {number}", str(len(values)), mean_and_sd(values))
        for number, values in candidates(study)
    ]
    cost = dict(zip(_COST_HEADERS, _cost(study), strict=True))
    spent = ", ".join(f"{name}: {value}" for name, value in cost.items())
    headers = ("candidate", "complete seeds", study.value_name)
    return paragraph(read, "read") + table(headers, rows, right=(1, 2)) + paragraph(spent, "small")


def comparison(compared: Table | None, sentences: Sequence[str]) -> str:
    """Show a comparison that was made elsewhere; nothing where none was."""
    if compared is None and not sentences:
        return ""
    parts = []
    if compared is not None:
        right = [i for i, column in enumerate(compared.columns) if column.align == "right"]
        headers = [column.header for column in compared.columns]
        parts.append(table(headers, compared.rows, right=right, caption=compared.title))
        parts += [paragraph(note, "small") for note in compared.notes]
    parts += [paragraph(sentence) for sentence in sentences]
    return _section("comparison", "Comparison", *parts)


def best_so_far(studies: Sequence[StudyRecord], sheet: FigureSheet) -> str:
    """Show how the best objective rose."""
    searches = [study for study in studies if study.picks_best]
    if not searches:
        return ""
    read = (
        "The best complete trial so far; on the right its price in epochs, where pruned trials "
        "cost less. A curve that is still rising has not been searched to its end."
    )
    drawn = [
        sheet.place(figure, f"Best objective so far by {by}")
        for by in ("trials", "epochs")
        if (figure := figures.best_so_far(searches, by)) is not None
    ]
    body = f'<div class="pair">{"".join(drawn)}</div>' if drawn else _nothing(_NO_COMPLETE)
    return _section("best-so-far", "Best so far", paragraph(read, "read"), body)


_NO_COMPLETE = "No trial is complete yet."


def ranked_outputs(studies: Sequence[StudyRecord], sheet: FigureSheet) -> str:
    """Show the shape of the ranked outputs."""
    read = (
        "Softmax outputs sorted from the largest down, averaged over all judged images: dotted "
        "after the first epoch, solid after the last. A flatter line gives more to the other "
        "classes; this shape is what DSR regularises."
    )
    figure = figures.ranked_outputs(studies)
    body = (
        _nothing("None of the trials shown here has recorded its outputs.")
        if figure is None
        else sheet.place(figure, "Mean probability by rank of the class, logarithmic")
    )
    return _section("ranked-outputs", "Ranked outputs", paragraph(read, "read"), body)


def learning_curves(study: StudyRecord, sheet: FigureSheet) -> str:
    """Show what every trial reported epoch by epoch."""
    read = f"{study.curve_name.capitalize()} after each epoch; "
    read += "grey and dashed where the pruner stopped a trial, " if study.picks_best else ""
    read += f"darker blue where the {study.value_name} came out higher. The legend hides groups."
    figure = figures.learning_curves(study)
    body = (
        _nothing("No trial has finished an epoch yet.")
        if figure is None
        else sheet.place(figure, f"Learning curves of {study.name}")
    )
    return _part("Learning curves", paragraph(read, "read"), body)


def importance(study: StudyRecord, sheet: FigureSheet) -> str:
    """Show which parameters set the best trials apart."""
    read = (
        "How far the best trials' values of a parameter lie from those of all complete trials "
        "(PED-ANOVA), as shares of 1. A parameter without a share may matter outside of its range."
    )
    figure = parameter_figures.importance(study)
    body = "" if figure is None else sheet.place(figure, f"Importance in {study.name}")
    note = paragraph(study.importance_note, "small" if figure else "nothing")
    return _part("Parameter importance", paragraph(read, "read"), body, note)


def slices(study: StudyRecord, sheet: FigureSheet) -> str:
    """Show the objective over each parameter."""
    read = (
        "One point per trial: filled where it is complete, hollow at the accuracy at which it was "
        "pruned; star: best trial, diamond: published setting. What lies far below the complete "
        "trials is cut off, a double click shows it. The best points at an end of a range ask for "
        "a wider one."
    )
    drawn = [
        sheet.place(figure, f"Objective by {path}")
        for path in study.spec.search
        if (figure := parameter_figures.slice_of(study, path)) is not None
    ]
    missing = "No trial has a value yet." if study.spec.search else "Nothing is searched."
    body = f'<div class="slices">{"".join(drawn)}</div>' if drawn else _nothing(missing)
    return _part("Slices", paragraph(read, "read"), body)


def stage_choices(study: StudyRecord, sheet: FigureSheet) -> str:
    """Show the objective by chosen stages; nothing where no stages are searched."""
    paths = [path for path, param in study.spec.search.items() if isinstance(param, StageSubsets)]
    if not paths:
        return ""
    read = (
        "Trials by the stages that carry auxiliary classifiers; the bar is the median of the "
        "complete ones, pruned ones far below are cut off. The sampler tries good choices more "
        "often, so counts say something too."
    )
    drawn = [
        _nothing(f"{short(path)}: {_NO_COMPLETE[0].lower()}{_NO_COMPLETE[1:]}")
        if (figure := parameter_figures.stage_choice(study, path)) is None
        else sheet.place(figure, f"Objective by {path}")
        for path in paths
    ]
    return _part("Layer choice", paragraph(read, "read"), *drawn)


def evaluated_candidates(study: StudyRecord, sheet: FigureSheet) -> str:
    """Show the seeds of each candidate of a final evaluation."""
    read = (
        "One point per seed; candidates are named by their trial in the study that was searched."
    )
    figure = parameter_figures.candidates(study)
    body = (
        _nothing(_NO_COMPLETE)
        if figure is None
        else sheet.place(figure, f"Seeds of the candidates of {study.name}")
    )
    return _part("Candidates", paragraph(read, "read"), body)


def search_space(study: StudyRecord) -> str:
    """List what is searched, where and why."""
    if not study.spec.search:
        return _part("Search space", _nothing("Nothing is searched."))
    base = study.spec.base_params()
    best = study.best.params if study.best is not None else {}
    rows = [
        (
            short(path),
            param.describe(),
            setting(base.get(path, "not active")),
            setting(best.get(path, "not active")) if study.best is not None else MISSING,
            ", ".join(
                f"{short(key)}: at least {wanted.min_size} of them"
                if isinstance(wanted, Condition)
                else f"{short(key)}: {' | '.join(map(str, wanted))}"
                for key, wanted in param.when.items()
            ),
            param.reason,
        )
        for path, param in study.spec.search.items()
    ]
    headers = ("parameter", "range", "published", "best", "only when", "why")
    read = "Every range with the published value, the best trial's, and why it is what it is."
    return _part("Search space", paragraph(read, "read"), table(headers, rows, right=(2, 3)))


def environment(study: StudyRecord) -> str:
    """List where and with what the trials ran."""
    facts = [
        [(FACT_NAMES.get(key, key), fact) for key, fact in trial.facts.items()]
        for trial in study.trials
    ]
    counted = Counter(fact for of_trial in facts for fact in of_trial)
    order = list(dict.fromkeys(name for of_trial in facts for name, _ in of_trial))
    spec = ("spec", study.digest or study.spec.digest)
    rows = [("seed", str(study.spec.seed), MISSING), (*spec, MISSING)]
    rows += [
        (name, value, str(number))
        for (name, value), number in sorted(
            counted.items(), key=lambda item: (order.index(item[0][0]), -item[1])
        )
        if (name, value) != spec
    ]
    read = "Where and with what the trials ran; more than one row of a kind means a mixture."
    body = table(("what", "value", "trials"), rows, right=(2,))
    return _part("Environment", paragraph(read, "read"), body)


def failures(study: StudyRecord) -> str:
    """Count the failures by kind, each with its latest reason."""
    failed = [trial for trial in study.trials if trial.failure_kind or trial.state == "failed"]
    if not failed:
        return _part("Failures", _nothing("No trial failed."))
    kinds = Counter((trial.failure_kind or "unknown", trial.state) for trial in failed)
    rows = []
    for (kind, state), number in kinds.most_common():
        own = [t for t in failed if (t.failure_kind or "unknown", t.state) == (kind, state)]
        numbers = ", ".join(str(trial.number) for trial in own[:_MAX_NUMBERS])
        more = ", ..." if len(own) > _MAX_NUMBERS else ""
        reason = " ".join((own[-1].failure_reason or "").split())
        if len(reason) > _MAX_REASON:
            reason = reason[:_MAX_REASON] + " ..."
        rows.append((kind, state, str(number), numbers + more, reason))
    headers = ("kind", "state", "number", "trials", "latest reason")
    read = "Trials whose training went wrong; one that diverged counts as pruned, not as failed."
    return _part("Failures", paragraph(read, "read"), table(headers, rows, right=(2,)))


def foreign(study: StudyRecord) -> str:
    """List the trials that are in none of the numbers; nothing where there are none."""
    if not study.foreign:
        return ""
    rows = [
        (str(t.number), t.state, MISSING if t.value is None else f"{t.value:g}", t.foreign)
        for t in study.foreign
    ]
    read = "Rows that skdtune's workers did not make; no number and no figure has them."
    body = table(("trial", "state", "value", "why"), rows, right=(0, 2))
    return _part("Foreign trials", paragraph(read, "read"), body)


def repeat(study: StudyRecord) -> str:
    """Show the commands that make the study again, and its spec."""
    made = repetition(study.spec)
    read = (
        f"The same spec again, hash {study.spec.digest}; name another --storage, or it is there "
        "already."
    )
    if not study.picks_best:
        read = "From the study that was searched, in a storage without this evaluation."
    elif made.needs_file:
        read += f" Save the study file below as {study.name}.yaml first."
    lines = "\n".join(escaped(line) for line in made.commands)
    parts = [paragraph(read, "read"), f"<pre>{lines}</pre>"]
    if study.picks_best:
        spec = escaped(study_file(study.spec))
        parts.append(f"<details><summary>Study file</summary><pre>{spec}</pre></details>")
    return _part("Repeat it", *parts)


def study(record: StudyRecord, index: int, sheet: FigureSheet) -> str:
    """Show everything of one study."""
    parts = [learning_curves(record, sheet)]
    if not record.picks_best:
        parts.append(evaluated_candidates(record, sheet))
    else:
        parts += [
            importance(record, sheet),
            stage_choices(record, sheet),
            slices(record, sheet),
            search_space(record),
        ]
    parts += [environment(record), failures(record), foreign(record), repeat(record)]
    lead = paragraph(record.spec.description, "lead") if record.spec.description else ""
    return _section(f"study-{index}", record.name, lead, *parts)


def _section(anchor: str, title: str, *parts: str) -> str:
    return f'<section id="{anchor}"><h2>{escaped(title)}</h2>{"".join(parts)}</section>'


def _part(title: str, *parts: str) -> str:
    return f'<div class="part"><h3>{escaped(title)}</h3>{"".join(parts)}</div>'


def _nothing(text: str) -> str:
    return paragraph(text, "nothing")
