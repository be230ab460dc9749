"""Which trials' networks are kept, and how the storage and the dashboard know of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import torch
from optuna.trial import TrialState

from skdtune.models.families.resnet import BACKBONES, Backbone
from skdtune.models.network_file import NetworkInfo
from skdtune.networks.network_artifact import KeptFile, pack_network, store_artifact
from skdtune.queue import schema
from skdtune.queue.stored_study import StoredStudy, versions
from skdtune.training.device import describe_device, describe_kernels
from skdtune.training.trainer import Trainer

if TYPE_CHECKING:
    from skdtune.data.store import DataOnDevice

#: System attribute of a trial that names its network: artifact, checksum and length.
NETWORK_ATTRIBUTE = "skdtune:network"
#: Start of the system attributes that Optuna and its dashboard list artifacts by.
_ARTIFACT_PREFIX = "artifacts:"


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
        return {"network_sha256": self.file.sha256}

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
            f"{_ARTIFACT_PREFIX}{self.file.artifact_id}": json.dumps(meta),
            NETWORK_ATTRIBUTE: network,
        }


def network_of(system_attributes: Mapping[str, Any]) -> KeptFile | None:
    """Return the file of a trial's network by its system attributes, None if it was not kept."""
    found = system_attributes.get(NETWORK_ATTRIBUTE)
    if not isinstance(found, dict):
        return None
    num_bytes = found.get("num_bytes")
    return KeptFile(
        str(found.get("artifact_id")),
        str(found.get("sha256")),
        num_bytes if isinstance(num_bytes, int) else 0,
    )


def is_wanted(stored: StoredStudy, value: float) -> bool:
    """Tell whether the network of a trial that is about to end complete is to be kept.

    Args:
        stored: The study.
        value: The trial's objective value.
    """
    kept = stored.spec.keep_networks
    if kept == "none":
        return False
    if kept == "all" or stored.spec.kind.keeps_every_network:
        return True
    best = _best_value(stored.engine, stored.study_id)
    # An equal one, too: of equal trials the one of the lowest number counts as the best.
    return best is None or value >= best


def _best_value(engine: sa.Engine, study_id: int) -> float | None:
    query = (
        sa.select(sa.func.max(schema.values.c.value))
        .join(schema.trials, schema.trials.c.trial_id == schema.values.c.trial_id)
        .where(
            schema.trials.c.study_id == study_id,
            schema.trials.c.state == TrialState.COMPLETE,
        )
    )
    with engine.connect() as connection:
        best: float | None = connection.scalar(query)
    return best


def keep_network(
    url: str,
    stored: StoredStudy,
    number: int,
    trainer: Trainer,
    data: DataOnDevice,
    accuracy: float,
) -> KeptNetwork:
    """Write the network of a trained trial into the artifact store.

    Args:
        url: A folder, or an fsspec URL.
        stored: The study.
        number: Number of the trial.
        trainer: The training, after its last epoch.
        data: The images that it learned from and was judged on.
        accuracy: Share that it classified right.

    Raises:
        SkdtuneError: If it cannot be written.
    """
    backbone = trainer.network.backbone
    assert isinstance(backbone, Backbone)
    # A final evaluation has no validation images, and no test image leaves its data set.
    images = data.train if data.val is None else data.val
    info = _describe(stored, number, trainer, data, accuracy)
    content = pack_network(backbone, images, trainer.dtype, info)
    filename = f"{stored.spec.name}-trial-{number:05d}.safetensors"
    return KeptNetwork(store_artifact(url, content), filename)


def _describe(
    stored: StoredStudy, number: int, trainer: Trainer, data: DataOnDevice, accuracy: float
) -> NetworkInfo:
    _, channels, height, width = data.train.images_NCHW.shape
    model = trainer.config.model
    return NetworkInfo(
        model=model.name,
        width=model.width or BACKBONES[model.name].width,
        in_channels=channels,
        height=height,
        image_width=width,
        class_names=data.class_names,
        mean=tuple(data.train.mean_C.tolist()),
        std=tuple(data.train.std_C.tolist()),
        data_fingerprint=data.fingerprint,
        trained_on="train+val" if data.val is None else "train",
        config=trainer.config.model_dump(mode="json"),
        study=stored.spec.name,
        trial=number,
        accuracy=accuracy,
        precision="bfloat16" if trainer.dtype is torch.bfloat16 else "float32",
        environment={
            "device": f"{trainer.device} ({describe_device(trainer.device)})",
            "kernels": describe_kernels(trainer.device),
            "threads": str(torch.get_num_threads()),
            **versions(),
            "torch": torch.__version__,
        },
    )
