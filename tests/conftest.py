"""Set-up shared by all tests: markers, thread counts, deterministic property tests.

Holds no fixtures of single areas; those live beside the tests that use them.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# One thread per test process under xdist: the workers already fill the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# torch.utils.cpp_extension looks for ninja on the PATH; it lies beside the interpreter.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

settings.register_profile("fusewright", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("fusewright")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped where there is none")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or cuda_is_available():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()
