"""Optuna's own contract of a storage, kept by the storage that skdtune builds.

Whatever reads or writes a study with plain Optuna (its dashboard, a person's notebook) must find
the storage as Optuna promises it, also with the connection settings and the tables beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from skdtune.queue.storage import init_storage


class TestStorageOfSkdtune(StorageTestCase):
    @pytest.fixture
    def storage(self, ready_url: str) -> Iterator[BaseStorage]:
        opened = init_storage(ready_url)
        yield opened
        opened.engine.dispose()

    @pytest.mark.skip(reason="skdtune sends no storage to another process: each opens its own")
    def test_pickle_storage(self, storage: BaseStorage) -> None:
        """Not offered: a copy would lack the settings of SQLite's connections."""
