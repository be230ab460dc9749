"""Commands that end this process, but for the test around them."""

from __future__ import annotations

import pytest

from skdtune.__main__ import main


def exit_code(*arguments: str) -> int:
    """Return the exit code with which a command ends."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert isinstance(left.value.code, int)
    return left.value.code
