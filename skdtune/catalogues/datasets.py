"""The data sets there are: for each, what decodes it and knows of it."""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Data sets by name; importing one imports neither torch nor what decodes images.
DATASETS: Catalogue[Any] = Catalogue(
    "data set",
    {
        "digits": "skdtune.data.sets.digits:DIGITS",
        "cifar10": "skdtune.data.sets.cifar:CIFAR_10",
        "cifar100": "skdtune.data.sets.cifar:CIFAR_100",
        "imagefolder": "skdtune.data.sets.image_folder:IMAGE_FOLDER",
    },
    "skdtune.datasets",
)
