from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from skdtune.cli.main import cli


@pytest.fixture
def connections_end() -> Iterator[None]:
    """Close what commands leave to the end of their process, which in a test is not its end."""
    # What was there before is none of theirs, and looking through it takes longer than a test.
    gc.freeze()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run the command line in this process; an exception is an exception."""

    def invoke(*arguments: str) -> Result:
        return CliRunner(catch_exceptions=False).invoke(cli, arguments, prog_name="skdtune")

    return invoke
