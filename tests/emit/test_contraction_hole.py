"""The hole of a contraction, as emitted, run on the CPU around a given product.

The driver calls `apply` at every element, gathers partials of a few elements each, and merges them
out of order, as the skeleton's threads, tiles and slabs do.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
import torch

from fusewright.context import Context
from fusewright.emit.unit import translation_unit
from fusewright.ir import graph as g
from fusewright.ir.dtypes import FLOAT32, INT32
from fusewright.ir.kernel import Kernel, Program
from fusewright.run.interpret import interpret_graph
from fusewright.run.scalars import torch_dtype
from fusewright.schedule import contraction, schedule
from fusewright.target.arch import arch
from schedule.graphs import graph_of, matmul, tensor
from schedule.products import HOSTED, M, N
from simt.shim import host_text

SM90 = arch("cuda:sm_90a")
# What the device code needs of CUDA.
HEADER = """
#include <cmath>
#include <cstring>
#define __device__
namespace gemm90 { enum class Division { kBlockRows, kWarpRows, kStrips }; }
#define __forceinline__ inline
static int __float_as_int(float x) { int i; std::memcpy(&i, &x, 4); return i; }
static float __int_as_float(int i) { float x; std::memcpy(&x, &i, 4); return x; }
template <class T> T __ldg(const T* p) { return *p; }
static void ptx_rcp_approx_ftz_f32(float& y, float x) { y = 1.0f / x; }
"""
FOLDS = """
// A hole without folds has neither.
template <class H> void partial_identity(float* p) {
    if constexpr (H::kPartialWords > 0) H::partial_identity(p);
}
template <class H> void partial_merge(float* p, const float* q) {
    if constexpr (H::kPartialWords > 0) H::partial_merge(p, q);
}
"""
DRIVER = FOLDS + """
extern "C" void drive(void** members, const float* product, int rows, int cols) {
    HOLE hole;
    std::memcpy(&hole, members, sizeof hole);
    constexpr int W = HOLE::kPartialWords ? HOLE::kPartialWords : 1;
    const int kept = HOLE::kFoldsOverN ? rows : cols, folded = HOLE::kFoldsOverN ? cols : rows;
    for (int i = 0; i < kept; i++) {
        float total[W];
        partial_identity<HOLE>(total);
        for (int part = 2; part >= 0; part--) {  // elements part, part + 3, ...; one part is empty
            float p[W];
            partial_identity<HOLE>(p);
            for (int k = part; k < folded; k += 3) {
                const int m = HOLE::kFoldsOverN ? i : k, n = HOLE::kFoldsOverN ? k : i;
                hole.apply(0, m, n, product[m * cols + n], p);
            }
            partial_merge<HOLE>(total, p);
            float none[W];
            partial_identity<HOLE>(none);
            partial_merge<HOLE>(none, total);
            partial_merge<HOLE>(none, (partial_identity<HOLE>(p), p));
            std::memcpy(total, none, sizeof total);
        }
        FINISH
    }
}
"""


@pytest.fixture
def always(monkeypatch):
    """The skeleton wins whatever the shape."""
    monkeypatch.setattr(contraction, "refusal", lambda *product: None)


# The product of the operands as the hole computes them, from a streamed base and no other memory.
OPERANDS = """
extern "C" void drive(void** members, const float* base, int rows, int columns, int depth) {
    HOLE hole;
    std::memcpy(&hole, members, (sizeof members) * COUNT);
    float* out = const_cast<float*>(hole.out);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            float sum = 0;
            for (int k = 0; k < depth; k++)
                sum += hole.stream(0, i, k, base[i * depth + k]) * hole.planes(0, j, k);
            out[HOLE::kSwapped ? j * rows + i : i * columns + j] = sum;
        }
}
"""


def build(
    program: Program, folder: Path, driver: str = DRIVER
) -> tuple[ctypes.CDLL, list[str]]:
    """The driver around the program's only hole, and the buffers that are the hole's members."""
    text = translation_unit(program, SM90)
    device = text[text.index("// ---- device code") : text.index("#ifndef __CUDACC_RTC__")]
    (hole,) = re.findall(r"struct (\w+_hole)", device)
    finish = "hole.finish(0, i, total);" if "void finish" in device else ""
    host = text[text.index(f"const {hole} hole = {{") :]
    members = host[host.index("{") + 1 : host.index("}")].split(", ")
    driver = driver.replace("HOLE", hole).replace("FINISH", finish)
    driver = driver.replace("COUNT", str(len(members)))
    source = folder / "hole.cpp"
    source.write_text(f"{HEADER}{host_text(device)}{driver}")
    library = folder / "hole.so"
    command = ["g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(source)], check=True)
    return ctypes.CDLL(str(library)), members


def special_rows() -> torch.Tensor:
    """A residual with ties, infinities and NaN in some rows and columns."""
    r = torch.randn(M, N)
    r[1, 2] = r[3, 4] = r[3, 1] = float("nan")
    r[2] = float("-inf")
    r[4, 0], r[4, 5] = float("inf"), float("-inf")
    return r


@pytest.mark.parametrize("name", HOSTED)
def test_the_emitted_hole_gives_what_the_graph_means(name, always, tmp_path):
    graph = graph_of(*HOSTED[name])
    program = schedule(graph, Context(), SM90)
    assert [s.anchor for s in program.steps if isinstance(s, Kernel)] == ["contraction"]
    library, members = build(program, tmp_path)
    normal = {s.name: torch.randn(s.node.shape) for s in graph.inputs}
    cases = [normal, {n: torch.zeros_like(t) for n, t in normal.items()}]
    if "r" in normal:
        cases += [{**normal, "r": special_rows()}, {**normal, "r": torch.randn(M, N) * 1e5}]
    for inputs in cases:
        expected = interpret_graph(graph, inputs).outputs
        for got, want in zip(run(program, library, members, inputs), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-5, equal_nan=True)


def run(
    program: Program, library: ctypes.CDLL, members: list[str], inputs: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """The program's outputs by its hole, around the product in float32."""
    made = {
        x.name: torch.full(x.shape, -7).to(torch_dtype(x.dtype))
        for x in program.buffers
        if x.role in ("temp", "output")
    }
    memory = {**made, **inputs}
    product = (inputs["x"].double() @ inputs["w"].double().t()).float().contiguous()
    pointers = (ctypes.c_void_p * len(members))(*(memory[n].data_ptr() for n in members))
    library.drive(pointers, ctypes.c_void_p(product.data_ptr()), M, N)
    return [memory[r.buffer] for r in program.returns]


@pytest.mark.parametrize("wide", [False, True])
def test_the_emitted_operands_are_what_the_graph_means(wide, always, tmp_path, monkeypatch):
    """Scale and shift of the one, of rows and along the depth; a converted type of the other."""
    monkeypatch.setattr(contraction, "pass_seconds", lambda *prologue: 1.0)
    rows, columns, depth = (9, 5, 10) if wide else (5, 9, 10)
    base, gain = tensor("x", max(rows, columns), depth), tensor("gain", depth, role="param")
    per_row = g.insert_expanded(tensor("s", base.shape[0]), (1,), base.shape)
    streamed = g.binary("mul", g.unary("tanh", base), g.expand(gain, base.shape))
    streamed = g.binary("add", streamed, per_row)
    codes = g.input_("codes", (min(rows, columns), depth), INT32, "param")
    small = g.binary("mul", g.cast(codes, FLOAT32), g.expand(gain, codes.shape))
    left, right = (streamed, small) if wide else (small, streamed)
    graph = graph_of(matmul(left, g.permute(right, (1, 0))))
    program = schedule(graph, Context(), SM90)
    library, members = build(program, tmp_path, OPERANDS)
    inputs = {
        s.name: (torch.randn(s.node.shape) * 3).to(torch_dtype(s.node.dtype)) for s in graph.inputs
    }
    out = torch.empty(rows, columns)
    memory = {**inputs, "out": out}
    pointers = (ctypes.c_void_p * len(members))(*(memory[n].data_ptr() for n in members))
    data = ctypes.c_void_p(inputs["x"].data_ptr())
    library.drive(pointers, data, base.shape[0], codes.shape[0], depth)
    (expected,) = interpret_graph(graph, inputs).outputs
    torch.testing.assert_close(out, expected, rtol=2e-5, atol=1e-5)
