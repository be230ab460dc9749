"""The token of a worker: the storage knows it by that, and so does the engine that started it.

Host names and process numbers are for people: containers share a host name easily, and each of
them has a process 1.
"""

from __future__ import annotations

import os
import re
import secrets

from skdtune.errors import InputError

#: How an engine hands a token to a worker, so that it can say later which one died.
TOKEN_VARIABLE = "SKDTUNE_WORKER_TOKEN"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}")


def new_token() -> str:
    """Return a token that no other worker has."""
    return secrets.token_hex(16)


def token_from_environment() -> str:
    """Return the token that an engine handed to this worker; a new one if none did.

    Raises:
        InputError: If it is no token.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        return new_token()
    if not _TOKEN.fullmatch(token):
        raise InputError(
            f"{TOKEN_VARIABLE}: expected 16 to 64 letters, digits, - or _, received {token!r}; "
            "engines set it, people leave it unset"
        )
    return token
