"""How the storage and the dashboard know of a trial's network that was kept as an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: System attribute of a trial that names its network: artifact, checksum and length.
NETWORK_ATTRIBUTE = "skdtune:network"
#: User attribute of a trial with the checksum of its network.
SHA256_ATTRIBUTE = "network_sha256"
#: Start of the system attributes that Optuna and its dashboard list artifacts by.
ARTIFACT_PREFIX = "artifacts:"


@dataclass(frozen=True)
class KeptFile:
    """A file that was kept as an artifact."""

    artifact_id: str
    """Its name in the store."""

    sha256: str
    """Checksum of its content."""

    num_bytes: int
    """Its length."""


@dataclass(frozen=True)
class KeptNetwork:
    """The network of a trial, as an artifact that the end of the trial makes known."""

    file: KeptFile
    """The file in the store."""

    filename: str
    """What it is called when it is downloaded."""

    @property
    def user_attributes(self) -> dict[str, Any]:
        """What people look at."""
        return {SHA256_ATTRIBUTE: self.file.sha256}

    @property
    def system_attributes(self) -> dict[str, Any]:
        """What the dashboard and the export find it by."""
        # As optuna.artifacts writes it, which needs a second transaction for it.
        meta = {
            "artifact_id": self.file.artifact_id,
            "filename": self.filename,
            "mimetype": "application/octet-stream",
            "encoding": None,
        }
        network = {
            "artifact_id": self.file.artifact_id,
            "sha256": self.file.sha256,
            "num_bytes": self.file.num_bytes,
        }
        return {
            f"{ARTIFACT_PREFIX}{self.file.artifact_id}": json.dumps(meta),
            NETWORK_ATTRIBUTE: network,
        }


def network_of(system_attributes: Mapping[str, Any]) -> KeptFile | None:
    """Return the file of a trial's network by its system attributes, None if it was not kept."""
    stored = system_attributes.get(NETWORK_ATTRIBUTE)
    if not isinstance(stored, dict):
        return None
    num_bytes = stored.get("num_bytes")
    return KeptFile(
        str(stored.get("artifact_id")),
        str(stored.get("sha256")),
        num_bytes if isinstance(num_bytes, int) else 0,
    )
