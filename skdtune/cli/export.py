"""``skdtune export``."""

from __future__ import annotations

from pathlib import Path

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_json,
    json_option,
    pass_application,
    say,
)


@click.command()
@click.argument("study")
@click.option(
    "--trial",
    "number",
    type=click.IntRange(min=0),
    help="Number of the trial.  [default: the best; of a final evaluation the first]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder to make.  [default: STUDY-trial-N; of a run, exported in its folder]",
)
@click.option("--no-program", is_flag=True, help="Leave model.pt2 out: weights and card only.")
@json_option
@common_options
@pass_application
def export(
    application: Application,
    study: str,
    number: int | None,
    folder: Path | None,
    no_program: bool,
    as_json: bool,
) -> None:
    """Write the trained network of a trial of STUDY into a folder, with a model card.

    STUDY may also be the folder of a run that `train` made.

    The network comes without its auxiliary classifiers: as model.safetensors, a state dict, and
    as model.pt2, a torch.export program that needs torch alone. That its outputs equal those of
    the network that was evaluated is checked before anything is written.
    """
    from skdtune.cli.extra import needs_train_extra

    path = Path(study)
    # A folder that `train` made; studies have no folder of their name.
    if (path / "run.json").is_file():
        _export_run(application, path, number, folder, no_program, as_json)
        return
    with needs_train_extra("export"):
        from skdtune.networks.export import export_network
    exported = export_network(
        study,
        number=number,
        folder=folder,
        with_program=not no_program,
        storage=application.url,
        at=application.home,
    )
    if as_json:
        echo_json(exported.to_dict(study))
        return
    say(
        application,
        f"exported trial {exported.trial} of {study} to {exported.folder}: "
        f"{', '.join(exported.files)}\nits outputs are {exported.agreement.describe()}",
    )


def _export_run(
    application: Application,
    path: Path,
    number: int | None,
    folder: Path | None,
    no_program: bool,
    as_json: bool,
) -> None:
    import dataclasses

    from skdtune.cli.extra import needs_train_extra
    from skdtune.errors import InputError

    if number is not None:
        raise InputError(f"--trial {number}: {path} is one run, which has no trials")
    with needs_train_extra("export"):
        from skdtune.runs.card import export_run
    target = (folder or path / "exported").expanduser().absolute()
    agreement = export_run(path, target, with_program=not no_program)
    files = sorted(file.name for file in target.iterdir())
    if as_json:
        rest = {"files": files, "agreement": dataclasses.asdict(agreement)}
        echo_json({"run": str(path), "folder": str(target), **rest})
        return
    say(
        application,
        f"exported {path} to {target}: {', '.join(files)}\nits outputs are {agreement.describe()}",
    )
