"""What is written down about a network that was trained here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from skdtune.data.store import DataOnDevice
from skdtune.models.network_file import NetworkInfo, package_that_offers
from skdtune.training.device import describe_device, describe_kernels
from skdtune.training.trainer import Trainer


def describe_network(
    trainer: Trainer,
    data: DataOnDevice,
    *,
    study: str,
    trial: int,
    accuracy: float,
    versions: Mapping[str, str],
) -> NetworkInfo:
    """Describe the network of a training that ran to its end.

    Args:
        trainer: The training.
        data: The images that it learned from and was judged on.
        study: Name of the study, or of a run without one.
        trial: Number of the trial, 0 for a run.
        accuracy: Share that it classified right.
        versions: Versions that it was trained with, torch's not among them.
    """
    channels, height, width = data.train.image_shape
    model = trainer.config.model
    return NetworkInfo(
        model=model.name,
        width=model.channels,
        stem=model.stem,
        package=package_that_offers(model.name),
        in_channels=channels,
        height=height,
        image_width=width,
        class_names=data.class_names,
        mean=tuple(data.train.mean_C.tolist()),
        std=tuple(data.train.std_C.tolist()),
        data_fingerprint=data.fingerprint,
        trained_on="train+val" if data.val is None else "train",
        config=trainer.config.model_dump(mode="json"),
        study=study,
        trial=trial,
        accuracy=accuracy,
        precision="bfloat16" if trainer.dtype is torch.bfloat16 else "float32",
        environment={
            "device": f"{trainer.device} ({describe_device(trainer.device)})",
            "kernels": describe_kernels(trainer.device),
            "threads": str(torch.get_num_threads()),
            **versions,
            "torch": torch.__version__,
        },
    )
