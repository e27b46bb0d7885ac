"""Imports emitted text in this process. Kernels are not compiled here but on first use."""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fusewright.errors import OutputError

from .build import default_cache_dir
from .files import write_atomically


def import_text(text: str, stem: str, given: Mapping[str, Any]) -> ModuleType:
    """Run Python text as a module whose globals hold `given`; kept in the cache under its content.

    The module stays in `sys.modules`, so that instances of its classes can be pickled in this
    process; the same text with the same globals is run once. Raises OutputError when the cache
    cannot be written.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    identity = "_".join(f"{id(value):x}" for value in given.values())
    name = f"fusewright_optimized_{digest}_{identity}"
    if name not in sys.modules:
        path = _kept(text, default_cache_dir() / "modules" / f"{stem}_{digest}.py")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise OutputError(f"{path}: cannot be imported")
        module = importlib.util.module_from_spec(spec)
        vars(module).update(given)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _kept(text: str, path: Path) -> Path:
    """The file with this text, written at once so that no other process sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(text, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return path
