"""The checks themselves: emitted kernels broken on purpose are caught, whatever the order.

Each mutant is an edit of a file's CUDA text. An edit that changes nothing is an error of the test:
when the emitter's text changes shape, the edit is to be adapted.
"""

import re
from functools import cache

import pytest

from module.problems import compiled, write_problem
from simt.shim import Library, Run, SimtError, compare, run_of
from simt.test_examples import OTHERS

BODIES = {
    # a row per block, vectors, both exchanges through shared memory
    "rows": """
class Model(nn.Module):
    def forward(self, x): return torch.softmax(x, -1)
def get_inputs(): return [torch.randn(5, 4096)]
""",
    # several rows per warp and dead rows at the end
    "lanes": """
class Model(nn.Module):
    def forward(self, x): return torch.softmax(x, -1)
def get_inputs(): return [torch.randn(33, 50)]
""",
    "columns": """
class Model(nn.Module):
    def forward(self, x): return x.sum(0)
def get_inputs(): return [torch.randn(301, 50)]
""",
    "points": """
class Model(nn.Module):
    def forward(self, x): return x.exp()
def get_inputs(): return [torch.randn(37, 27)]
""",
    "planes": OTHERS["column_stream"],
    "windows": OTHERS["window"],
}
SYNC = r"__syncthreads\(\);"
HALF_A_BLOCK = "if (threadIdx.x < 32) __syncthreads();"
RELEASE = r"(void release\(int chunk\) \{\s*)__syncthreads\(\);"
AHEAD, ONE_LESS = r"chunk \+ STAGES < count", "chunk + STAGES + 1 < count"
# What lies past the last row is the next tensor, where the allocator put it there.
BEYOND = "out of bounds|race|nobody wrote"
SHUFFLE = r"__shfl_xor_sync\(0xffffffffu"
NEXT_ROW = r"(row_first \+ 2;.*?_at) < 38\b"
# name: (subject, pattern, replacement, what must be said)
MUTANTS = {
    "barrier removed": ("rows", SYNC, "", "race|nobody wrote"),
    "last barrier removed": ("rows", rf"{SYNC}(?!.*{SYNC})", "", "race|nobody wrote"),
    "barrier of a column fold removed": ("columns", SYNC, "", "race|nobody wrote"),
    "barrier in one warp only": ("rows", SYNC, HALF_A_BLOCK, "divergence|nobody wrote"),
    "bound of the points off by one": ("points", r"< 999\b", "<= 999", "out of bounds"),
    "column bound off by one": ("columns", r"< 301\b", "<= 301", BEYOND),
    "row not clamped": ("lanes", r"live \? (\w+) : \d+", r"\1", BEYOND),
    "dead rows stored": ("lanes", r"if \(live\)", "if (true)", "race"),
    "one block too many": ("rows", r"<<<5,", "<<<6,", "out of bounds|race"),
    "one warp writes its sum": ("rows", r"threadIdx\.x % 32 ==", "threadIdx.x ==", "nobody wrote"),
    "shared array too short": ("columns", r"(\w+_groups)\[\d+\]\[", r"\1[1][", "out of|outside"),
    "vectors misaligned": ("rows", r"fw_load<4>\(x \+ ", "fw_load<4>(x + 1 + ", "misaligned"),
    "half a warp in the mask": ("rows", SHUFFLE, "__shfl_xor_sync(0xffffu", "leaves out"),
    "copies not waited for": ("planes", r"while \(!done\)", "while (false)", "copy is writing"),
    "copies over what is read": ("planes", RELEASE, r"\1", "race"),
    "barrier of a window removed": ("windows", SYNC, "", "race|nobody wrote"),
    "one buffer for all steps": ("windows", r"step % 2", "0", "race"),
    "edges not filled": ("windows", r"edge < \d+", "edge < 0", "nobody wrote"),
    "a row of places too many": ("windows", NEXT_ROW, r"\1 < 39", "out of bounds|race"),
    "a copy too few": ("planes", AHEAD, ONE_LESS, "divergence"),
}


@cache
def subject(name: str, folder) -> Run:
    return run_of(compiled(write_problem(folder, BODIES[name], name), target="cuda:sm_90a"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simt")


@pytest.mark.parametrize("name", BODIES)
def test_what_is_intact_is_right(name, folder):
    compare(subject(name, folder), range(5))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name, folder):
    of, pattern, replacement, finding = MUTANTS[name]
    intact = subject(of, folder)
    text = re.sub(pattern, replacement, intact.library.text, count=1, flags=re.DOTALL)
    changed = text != intact.library.text
    assert changed, f"{pattern} is not in the text"
    mutant = Run(intact.module, Library(text))
    for seed in range(3):
        with pytest.raises(SimtError, match=finding):
            compare(mutant, [seed])
