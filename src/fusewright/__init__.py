"""fusewright: a PyTorch forward pass as one standalone file of its own fused kernels.

Everything public is listed in `__all__`; it is imported on first use, because torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as __version__

if TYPE_CHECKING:
    from .api import explain, optimize
    from .problem import Problem
    from .run.bench import bench
    from .run.verify import verify

__all__ = ["Problem", "__version__", "bench", "explain", "optimize", "verify"]

_HOMES = (
    ("Problem", ".problem"),
    ("bench", ".run.bench"),
    ("explain", ".api"),
    ("optimize", ".api"),
    ("verify", ".run.verify"),
)


def __getattr__(name: str) -> Any:
    home = dict(_HOMES).get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)
