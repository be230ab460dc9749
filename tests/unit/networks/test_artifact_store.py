from __future__ import annotations

import io

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from skdtune.errors import InputError
from skdtune.networks.artifact_store import RemoteArtifactStore
from skdtune.networks.network_artifact import store_artifact

URL = "memory://dashboard/artifacts"


def test_what_a_worker_kept_is_served() -> None:
    kept = store_artifact(URL, b"a network")
    with RemoteArtifactStore(URL).open_reader(kept.artifact_id) as reader:
        assert reader.read() == b"a network"


def test_what_is_written_is_read_until_it_is_removed() -> None:
    store = RemoteArtifactStore(URL)
    store.write("abc", io.BytesIO(b"an image"))
    with store.open_reader("abc") as reader:
        assert reader.read() == b"an image"
    store.remove("abc")
    with pytest.raises(ArtifactNotFound):
        store.open_reader("abc")
    with pytest.raises(ArtifactNotFound):
        store.remove("abc")


def test_a_url_that_nothing_knows_is_said() -> None:
    with pytest.raises(InputError, match=r"SKDTUNE_ARTIFACTS cannot be reached: .*no-such"):
        RemoteArtifactStore("no-such://bucket/folder")
