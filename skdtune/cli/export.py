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

#: What a machine without the extra lacks, by the name of the import.
_TRAIN_PACKAGES = ("torch", "numpy", "safetensors", "fsspec")


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
    help="Folder to make.  [default: STUDY-trial-N]",
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

    The network comes without its auxiliary classifiers: as model.safetensors, a state dict, and
    as model.pt2, a torch.export program that needs torch alone. That its outputs equal those of
    the network that was evaluated is checked before anything is written.
    """
    from skdtune.errors import InputError

    try:
        from skdtune.networks.export import export_network
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN_PACKAGES:
            raise
        raise InputError(
            f"export needs {error.name}, which is not installed: pip install 'skdtune[train]'"
        ) from None
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
