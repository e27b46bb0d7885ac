"""The hole of a native product, as emitted, run on the CPU around a given product.

The driver calls `apply` at every run of columns and merges the partial results as the skeleton's
lanes and slabs do: one per row, or one per column of a run.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from emit.test_contraction_hole import FOLDS, HEADER, special_rows
from fusewright.context import Context
from fusewright.emit.unit import translation_unit
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32
from fusewright.ir.kernel import Kernel, Program
from fusewright.ir.native import native_plan
from fusewright.options import Options
from fusewright.run.interpret import interpret_graph
from fusewright.run.scalars import torch_dtype
from fusewright.schedule import contraction, schedule
from fusewright.target.arch import arch
from schedule.graphs import graph_of, matmul
from schedule.products import HOSTED
from simt.shim import host_text

SM90 = arch("cuda:sm_90a")
M, N, K = 6, 24, 16
# What conversions of 16-bit types need besides.
NARROW = """
static float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
static unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
static void ptx_cvt_f32_f16(float& y, unsigned short x) {
    _Float16 h;
    std::memcpy(&h, &x, 2);
    y = h;
}
static void ptx_cvt_rn_f16_f32(unsigned short& y, float x) {
    const _Float16 h = (_Float16)x;
    std::memcpy(&y, &h, 2);
}
"""
DRIVER = FOLDS + """
extern "C" void drive(void** members, const HOLE::Value* product, int rows, int cols) {
    HOLE hole;
    std::memcpy(&hole, members, sizeof hole);
    constexpr int W = HOLE::kPartialWords ? HOLE::kPartialWords : 1, R = HOLE::kRun;
    float down[64][W], total[W], run[R][W];
    for (int n = 0; n < cols; n++) partial_identity<HOLE>(down[n]);
    for (int m = 0; m < rows; m++) {
        partial_identity<HOLE>(total);
        for (int n = cols - R; n >= 0; n -= R) {
            HOLE::Value acc[R];
            std::memcpy(acc, product + m * cols + n, sizeof acc);
            for (auto& r : run) partial_identity<HOLE>(r);
            hole.apply(0, m, n, acc, run[0]);
            for (int v = 0; v < R; v++) partial_merge<HOLE>(down[n + v], run[v]);
            partial_merge<HOLE>(total, run[0]);
        }
        if (HOLE::kFoldsOverN) { FINISH(m, total) }
    }
    for (int n = 0; n < cols && !HOLE::kFoldsOverN; n++) { FINISH(n, down[n]) }
}
"""


@pytest.fixture
def always(monkeypatch):
    """The skeleton wins whatever the shape."""
    monkeypatch.setattr(contraction, "refusal", lambda *product: None)
    monkeypatch.setattr(contraction, "_with_faster_scheme", lambda product, *rates: product)


def build(program: Program, folder: Path) -> tuple[ctypes.CDLL, list[str]]:
    """The driver around the program's only hole, and the buffers that are the hole's members."""
    text = translation_unit(program, SM90)
    device = text[text.index("// ---- device code") : text.index("#ifndef __CUDACC_RTC__")]
    (hole,) = re.findall(r"struct (\w+_hole)", device)
    finish = "hole.finish(0, \\1, \\2);" if "void finish" in device else ""
    driver = re.sub(r"FINISH\((\w+), ([\w\[\]]+)\)", finish, DRIVER).replace("HOLE", hole)
    source = folder / "hole.cpp"
    source.write_text(f"{HEADER}{NARROW}{host_text(device)}{driver}")
    library = folder / "hole.so"
    command = ["g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(source)], check=True)
    host = text[text.index(f"const {hole} hole = {{") :]
    members = host[host.index("{") + 1 : host.index("}")].split(", ")
    return ctypes.CDLL(str(library)), members


def check(graph: g.Graph, precision: str, cases: list[dict[str, torch.Tensor]], folder: Path):
    """The outputs by the emitted hole are what the graph means."""
    program = schedule(graph, Context(Options(precision=precision)), SM90)
    (kernel,) = (s for s in program.steps if isinstance(s, Kernel))
    library, members = build(program, folder)
    plan = native_plan(kernel)
    for inputs in cases:
        expected = interpret_graph(graph, inputs).outputs
        made = {
            x.name: torch.full(x.shape, -7).to(torch_dtype(x.dtype))
            for x in program.buffers
            if x.role in ("temp", "output")
        }
        memory = {**made, **inputs}
        product = (inputs["x"].double() @ inputs["w"].double().t()).to(inputs["x"].dtype)
        held = [memory[n.removesuffix("_2")] for n in members]
        pointers = (ctypes.c_void_p * len(held))(*(t.data_ptr() for t in held))
        library.drive(pointers, ctypes.c_void_p(product.contiguous().data_ptr()), plan.m, plan.n)
        narrow = inputs["x"].dtype != torch.float32
        limits = {"rtol": 2e-2, "atol": 2e-2} if narrow else {"rtol": 2e-5, "atol": 1e-5}
        for r, want in zip(program.returns, expected, strict=True):
            torch.testing.assert_close(memory[r.buffer], want, equal_nan=True, **limits)
    return plan


@pytest.mark.parametrize("name", HOSTED)
def test_the_emitted_hole_of_rounded_products(name, always, tmp_path):
    graph = graph_of(*HOSTED[name])
    normal = {s.name: torch.randn(s.node.shape) for s in graph.inputs}
    cases = [normal, {n: torch.zeros_like(t) for n, t in normal.items()}]
    if "r" in normal:
        cases.append({**normal, "r": special_rows()})
    check(graph, "tf32", cases, tmp_path)


def wide(x):
    return g.cast(x, FLOAT32)


def narrow_graphs(dtype):
    x, w = g.input_("x", (M, K), dtype), g.input_("w", (N, K), dtype, "param")
    bias, r = g.input_("bias", (N,), dtype, "param"), g.input_("r", (M, N), dtype)
    p = g.input_("p", (M,), dtype)  # called as the hole's own parameter is
    hidden = g.binary("add", wide(matmul(x, g.permute(w, (1, 0)))), wide(g.expand(bias, (M, N))))
    residual = g.binary("add", g.unary("tanh", hidden), wide(r))
    scaled = g.binary("mul", residual, wide(g.insert_expanded(p, (1,), (M, N))))
    return {
        "pointwise": [g.cast(residual, dtype)],
        "row factor": [g.cast(scaled, dtype)],
        "float32 result": [residual],
        "row sum": [g.reduce("sum", residual, (1,))],
        "column maximum": [g.reduce("max", residual, (0,))],
        "stored and summed": [g.cast(residual, dtype), g.reduce("sum", residual, (0,))],
    }


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("name", narrow_graphs(BFLOAT16))
def test_the_emitted_hole_of_16_bit_products(name, dtype, always, tmp_path):
    graph = graph_of(*narrow_graphs(dtype)[name])
    kind = torch_dtype(dtype)
    cases = [{s.name: torch.randn(s.node.shape).to(kind) for s in graph.inputs} for _ in range(2)]
    assert check(graph, "match", cases, tmp_path).run == 8


def product_of(dtype, m, n, k, batch=0):
    """A product with a row sum behind it; operands of `batch` have it as first axis."""
    lead = (batch,) if batch else ()
    x, w = g.input_("x", (*lead, m, k), dtype), g.input_("w", (*lead, n, k), dtype, "param")
    out, (r,) = ix.axes((*lead, m, n)), g.reduced_axes((k,))
    y = g.contract(x, w, (*lead, m, n), (k,), (*out[:-1], r), (*out[:-2], out[-1], r))
    return graph_of(g.reduce("sum", g.unary("tanh", wide(y)), (len(lead) + 1,)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("dtype", "precision", "sizes"),
    [
        (BFLOAT16, "match", (70, 24, 32)),
        (FLOAT16, "match", (300, 515, 21)),
        (BFLOAT16, "match", (40, 12, 20, 3)),
        (FLOAT32, "bf16", (2048, 4104, 100)),
        (FLOAT32, "tf32", (130, 513, 33, 2)),
    ],
)
def test_the_workspace_is_what_the_skeleton_asks_for(dtype, precision, sizes, always, tmp_path):
    program = schedule(product_of(dtype, *sizes), Context(Options(precision=precision)), SM90)
    (kernel,) = (s for s in program.steps if isinstance(s, Kernel) and s.workspace)
    text = translation_unit(program, SM90)
    call = re.compile(r"return native90::run<Tile, \w+, ([^>]*)>\([^;]*;")
    size = rf"native90::workspace_bytes<Tile, \1, {kernel.name}_hole>(problem)"
    text, count = call.subn(f"return (cudaError_t){size};", text)
    assert count == 1
    entry = text[text.index('extern "C" int forward_0(') :]
    arguments = ["0"] * (entry[: entry.index(")")].count(",") + 1)
    main = f'int main() {{ printf("%d", forward_0({", ".join(arguments)})); }}'
    (tmp_path / "unit.cu").write_text(f"#include <stdio.h>\n{text}\n{main}\n")
    command = ["nvcc", "-std=c++17", "-O0", "-gencode", "arch=compute_90a,code=sm_90a"]
    program_file = tmp_path / "unit"
    subprocess.run([*command, "-o", str(program_file), str(tmp_path / "unit.cu")], check=True)
    done = subprocess.run([str(program_file)], capture_output=True, text=True, check=True)
    space = program.buffer(kernel.workspace)
    assert max(1, int(done.stdout)) == space.shape[0]
