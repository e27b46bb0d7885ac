"""Problem files for the tests of emitted modules, and how to compile and import them."""

import importlib.util
import sys
import textwrap
import warnings
from pathlib import Path
from types import ModuleType

import torch

from fusewright.options import Options
from fusewright.pipeline import Compilation, compile_problem
from fusewright.problem import load_problem

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
"""


def write_problem(folder: Path, body: str, name: str = "problem") -> Path:
    """A problem file with torch's usual imports before `body`."""
    path = folder / f"{name}.py"
    path.write_text(HEAD + textwrap.dedent(body))
    return path


def compiled(path: Path, **options: object) -> Compilation:
    """The compilation of a problem file for the CPU unless `options` say otherwise."""
    chosen = Options(**{"target": "cpu", **options})  # type: ignore[arg-type]
    return compile_problem(load_problem(path, fake=True), chosen)


def imported(c: Compilation, folder: Path) -> ModuleType:
    """The emitted file as a module of its own name."""
    path = folder / f"{c.title}_new.py"
    path.write_text(c.module_text)
    name = f"emitted_{folder.name}_{c.title}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def emitted(folder: Path, body: str, **options: object) -> ModuleType:
    """Compile a problem and import what comes out."""
    return imported(compiled(write_problem(folder, body), **options), folder)


def quiet(model, *inputs):
    """The result without gradients; the reference must not have run."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return model(*inputs)
