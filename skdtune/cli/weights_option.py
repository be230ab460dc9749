"""The option ``--weights``: what a training begins with in place of drawn weights."""

from __future__ import annotations

import os
from pathlib import Path

import click

from skdtune.home import WEIGHTS_VARIABLE


def _for_this_process(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> None:
    if value:
        # Worker processes inherit it, and may have another current folder.
        file = Path(value).expanduser()
        os.environ[WEIGHTS_VARIABLE] = str(file.absolute()) if file.is_file() else value


weights_option = click.option(
    "--weights",
    metavar="FILE|NAME",
    expose_value=False,
    envvar=WEIGHTS_VARIABLE,
    callback=_for_this_process,
    help="Begin with these weights: a safetensors file, or a name such as "
    "torchvision:ResNet18_Weights.DEFAULT. A study keeps their checksum only.  "
    f"[env: {WEIGHTS_VARIABLE}]",
)


def setting_of_weights() -> tuple[str, ...]:
    """Return the setting that weights make which were named, none if there are none.

    Raises:
        InputError: If they cannot be read.
    """
    origin = os.environ.get(WEIGHTS_VARIABLE)
    if not origin:
        return ()
    from skdtune.cli.extra import needs_train_extra

    with needs_train_extra("--weights"):
        from skdtune.models.pretrained import read_weights

        # In quotes: digits with an `e` among them would be a number.
        return (f"model.weights_sha256='{read_weights(origin).sha256}'",)
