"""``torch.compile`` for the network of a trial, where somebody asks for it.

Off by default: compiling costs tens of seconds, which a trial of a few minutes does not earn back,
and on the CPU our own kernels are faster. Where it pays is for ``benchmarks/training.py --device
cuda --compile`` to tell. What was compiled is kept in the cache of the home, for all workers.
"""

from __future__ import annotations

import os
from typing import Literal, cast, get_args

from torch import nn

from skdtune.catalogues.models import MAX_STAGES
from skdtune.errors import InputError
from skdtune.home import home

#: Unset for no compilation, else one of torch's modes; ``reduce-overhead`` replays CUDA graphs.
COMPILE_VARIABLE = "SKDTUNE_COMPILE"

#: Graphs of networks that a process keeps: its trials may read any of the stages, and each choice
#: in training, with and without gradients, in evaluation, and for a last batch that is smaller.
MAX_GRAPHS = 4 * 2**MAX_STAGES

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]


def compile_mode() -> CompileMode | None:
    """Return the mode that ``SKDTUNE_COMPILE`` names, None if it is unset or empty.

    Raises:
        InputError: If there is no such mode.
    """
    named = os.environ.get(COMPILE_VARIABLE)
    if not named:
        return None
    if named not in get_args(CompileMode):
        allowed = ", ".join(get_args(CompileMode))
        raise InputError(f"{COMPILE_VARIABLE}: expected one of {allowed}, received {named!r}")
    return cast(CompileMode, named)


def compile_network(network: nn.Module, mode: CompileMode | None) -> None:
    """Compile a network in place, at its first step; its parameters and names stay as they are.

    Args:
        network: Any backbone.
        mode: How, None for not at all.
    """
    if mode is None:
        return
    # Here, because it takes a second, which only who compiles has a use for.
    from torch._dynamo import config

    # Past its limit torch goes on without compiling. These names are older than `recompile_limit`.
    config.cache_size_limit = max(config.cache_size_limit, MAX_GRAPHS)
    config.accumulated_cache_size_limit = max(config.accumulated_cache_size_limit, 2 * MAX_GRAPHS)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home().cache / "inductor"))
    network.compile(mode=mode, dynamic=False)
