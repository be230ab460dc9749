"""Which trials' networks are kept, and how they are written into the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skdtune.networks.description import describe_network
from skdtune.networks.network_artifact import pack_network, store_artifact
from skdtune.queue.best_trial import best_so_far
from skdtune.queue.kept_network import KeptNetwork
from skdtune.queue.stored_study import StoredStudy, versions
from skdtune.training.trainer import Trainer

if TYPE_CHECKING:
    from skdtune.data.store import DataOnDevice


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
    with stored.engine.connect() as connection:
        best = best_so_far(connection, stored.study_id)
    # An equal one, too: of equal trials the one of the lowest number counts as the best.
    return best is None or value >= best[1]


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
    # A final evaluation has no validation images, and no test image leaves its data set.
    images = data.train if data.val is None else data.val
    info = describe_network(
        trainer,
        data,
        study=stored.spec.name,
        trial=number,
        accuracy=accuracy,
        versions=versions(),
    )
    content = pack_network(trainer.network, images, trainer.dtype, info)
    filename = f"{stored.spec.name}-trial-{number:05d}.safetensors"
    return KeptNetwork(store_artifact(url, content), filename)
