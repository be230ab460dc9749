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
        "svhn": "skdtune.data.sets.svhn:SVHN",
        "fashion_mnist": "skdtune.data.sets.fashion_mnist:FASHION_MNIST",
        "tiny_imagenet": "skdtune.data.sets.tiny_imagenet:TINY_IMAGENET",
        "cub200": "skdtune.data.sets.cub200:CUB_200",
        "stanford_dogs": "skdtune.data.sets.stanford_dogs:STANFORD_DOGS",
        "caltech101": "skdtune.data.sets.caltech101:CALTECH_101",
        "flowers102": "skdtune.data.sets.flowers102:FLOWERS_102",
        "oxford_pets": "skdtune.data.sets.oxford_pets:OXFORD_PETS",
        "imagenette": "skdtune.data.sets.imagenet:IMAGENETTE",
        "imagenet1k": "skdtune.data.sets.imagenet:IMAGENET",
        "imagefolder": "skdtune.data.sets.image_folder:IMAGE_FOLDER",
    },
    "skdtune.datasets",
)
