from __future__ import annotations

import pytest

from skdtune.errors import InputError
from skdtune.queue.worker_token import TOKEN_VARIABLE, new_token, token_from_environment


def test_who_was_started_by_nobody_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({token_from_environment(), token_from_environment(), new_token()}) == 3
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert token_from_environment() != token_from_environment()


def test_what_an_engine_hands_over_is_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in (new_token(), "my-job_4711-worker-3"):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        assert token_from_environment() == token


@pytest.mark.parametrize(
    "text", ["1", "a" * 15, "a" * 65, "a token with blanks", "ä" * 20, "'" * 20]
)
def test_what_is_no_token_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, text)
    with pytest.raises(InputError, match=r"^SKDTUNE_WORKER_TOKEN: expected 16 to 64 .* unset$"):
        token_from_environment()
