"""Files of CIFAR-100 in the published format, with random images."""

from __future__ import annotations

from functools import partial

from data_makers import cifar10

make = partial(cifar10.make, entry="CIFAR_100")
