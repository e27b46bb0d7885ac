"""What nvcc makes of the printed CUDA: no spills, 16-byte accesses, loads before their first use.

Needs nvcc, and cuobjdump for the machine code; no GPU.
"""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from emit.kernels import all_folds, bag, norm, softmax
from emit.nests import (
    CUDA,
    Case,
    buffer,
    kernel,
    lit,
    load,
    merged,
    op,
    program,
    ref,
    var,
)
from emit.scans import TILES as SCAN_TILES
from emit.scans import running, softmax_then_scan
from emit.test_cuda_reduce import TILES
from emit.test_elementwise import MAKERS, broadcast
from emit.test_scalar_ops import every_operation
from emit.windows import drawn
from fusewright.emit.unit import translation_unit
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Fold, Phase, Store, Tile
from fusewright.run.build import compile_cuda, find_nvcc

SCANS = (("sum", "prod", "max"), ("logsumexp", "argmin"))

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc")


def compiled(cases, arch="sm_90a"):
    p = merged(cases)
    return compile_cuda(translation_unit(p, CUDA), arch)


def find_cuobjdump() -> str | None:
    """In the toolkit, or where the package nvidia-cuda-cuobjdump puts it."""
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    inside = next(iter(sorted(packages.glob("*/bin/cuobjdump"))), None)
    return shutil.which("cuobjdump") or (str(inside) if inside else None)


def machine_code(binary, name: str) -> list[str]:
    """The instructions of the kernel whose name holds `name`."""
    tool = find_cuobjdump()
    if tool is None:
        pytest.skip("no cuobjdump")
    text = subprocess.run([tool, "-sass", binary.path], capture_output=True, text=True).stdout
    parts = re.split(r"Function : (\S+)", text)
    code = next(c for n, c in zip(parts[1::2], parts[2::2], strict=True) if name in n)
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z][A-Z0-9_.]*)", code)


def big_sigmoid(items: int) -> Case:
    n = var("n", 4096 * 393216)
    store = Store("y", n * 1, op("sigmoid", load("x", n)))
    k = kernel("sigmoid", "elementwise", (n,), (Phase((), stores=(store,)),), Tile(256, 4, items))
    return Case(program([buffer("x", (n.extent,)), buffer("y", (n.extent,), "output")], k), {}, ())


def plane_sum(tile: Tile) -> Case:
    i, j, k = var("i", 128), var("j", 4095), var("k", 4096)
    total = Fold("total", "sum", dt.FLOAT32, load("x", i * 16773120 + k * 4095 + j))
    store = Store("y", i * 4095 + j, op("mul", ref("total"), lit(2.0)))
    phases = (Phase((k,), folds=(total,)), Phase((), stores=(store,)))
    buffers = [buffer("x", (128, 4096, 4095)), buffer("y", (128, 4095), "output")]
    return Case(program(buffers, kernel("planes", "column_reduce", (i, j), phases, tile)), {}, ())


@pytest.mark.parametrize("arch", ["sm_90a", "sm_75"])
def test_every_kind_of_kernel_assembles(arch):
    """Reductions with all tiles, all accesses, all operations: no spill and no warning."""
    tile = Tile(256, 4, 2)
    cases = [make(tile) for make in MAKERS] + every_operation()
    for anchor, tiles in TILES.items():
        for t in tiles if anchor != "row_cluster" or arch == "sm_90a" else ():
            cases += [softmax(anchor, 36, 260, t), norm(anchor, t), *all_folds(anchor, t)]
    for anchor, tiles in SCAN_TILES.items():
        for t in tiles:
            x = torch.randn(3, 260)
            cases += [running(anchor, x, kinds, tile=t) for kinds in SCANS]
            cases.append(softmax_then_scan(anchor, x, t))
    cases += [drawn(seed) for seed in range(10)]
    binary = compiled(cases, arch)
    assert binary.spilling == ()
    assert binary.warnings == ()


@pytest.mark.parametrize("items", [1, 4])
def test_elementwise_moves_16_bytes_and_loads_first(items):
    code = machine_code(compiled([big_sigmoid(items)]), "sigmoid")
    loads = [n for n, x in enumerate(code) if x.startswith("LDG")]
    assert [code[n] for n in loads] == ["LDG.E.128.CONSTANT"] * items
    assert [x for x in code if x.startswith("STG")] == ["STG.E.128"] * items
    assert max(loads) < code.index("MUFU.EX2")  # all loads are issued before the first use


def test_broadcast_operands_are_vectors_too():
    code = machine_code(compiled([broadcast(Tile(256, 4, 1))]), "k_0")
    assert code.count("LDG.E.128.CONSTANT") == 2  # the array and the value per column


def test_rows_of_a_table_are_read_by_vectors():
    code = machine_code(compiled([bag("column_reduce", Tile(256, 4, 4, 4))]), "bag")
    assert "LDG.E.128.CONSTANT" in code


def test_misaligned_columns_keep_many_rows_in_flight():
    code = machine_code(compiled([plane_sum(Tile(256, 1, 16, 1))]), "planes")
    first_add = next(n for n, x in enumerate(code) if x.startswith("FADD"))
    ahead = sum(x.startswith("LDG") for x in code[:first_add])
    assert ahead >= 8  # with eight warps a multiprocessor quarter, 64 KB a multiprocessor


def test_rows_are_read_by_vectors():
    code = machine_code(compiled([softmax("row_reduce", 64, 8192, Tile(512, 4, 4, 512))]), "soft")
    assert "LDG.E.128.CONSTANT" in code
    assert "STG.E.128" in code
    assert not any(x.startswith(("LDL", "STL")) for x in code)
