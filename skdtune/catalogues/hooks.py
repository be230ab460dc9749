"""The hooks of the worker there are: what accompanies a trial in hand."""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Classes of hooks, in the order in which they are called. The built-in ones accompany every
#: trial; one that a package offers, those of the studies that name it.
HOOKS: Catalogue[Any] = Catalogue(
    "hook",
    {
        "time_limits": "skdtune.worker.hooks.time_limits:TimeLimits",
        "log_lines": "skdtune.worker.hooks.log_lines:LogLines",
        "peak_memory": "skdtune.worker.hooks.peak_memory:PeakMemoryHook",
        "other_kernels": "skdtune.worker.hooks.other_kernels:OtherKernelsHook",
        "kept_network": "skdtune.worker.hooks.kept_network:KeptNetworkHook",
    },
    "skdtune.hooks",
)
