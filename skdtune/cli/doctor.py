"""``skdtune doctor``."""

from __future__ import annotations

import dataclasses

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_json,
    json_option,
    pass_application,
    terminal,
)


@click.command()
@click.argument("study", required=False)
@json_option
@common_options
@pass_application
def doctor(application: Application, study: str | None, as_json: bool) -> int:
    """Look at storage, devices, kernels, disks and workers, and at what STUDY needs here.

    A line for each thing, with what to do about it. Nothing is changed, but for the kernels, which
    are built as a worker would. Exit code 1 if something is wrong.
    """
    from skdtune.doctor.examination import examine
    from skdtune.doctor.finding import Installation

    installation = Installation(home=application.home, storage_url=application.url, study=study)
    findings = []
    out = terminal()
    styles = {"ok": "green", "note": "yellow", "wrong": "bold red"}
    for finding in examine(installation):
        findings.append(finding)
        if as_json or (finding.level == "ok" and application.verbosity < 0):
            continue
        out.print(f"{finding.level:<5}", style=styles[finding.level], end=" ")
        out.print(f"{finding.about:<11}", finding.line, soft_wrap=True)
    if as_json:
        echo_json([dataclasses.asdict(finding) for finding in findings])
    return int(any(finding.level == "wrong" for finding in findings))
