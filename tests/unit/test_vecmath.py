"""The elementary functions of the CPU kernels: accuracy in ulps, special values, vectorisation.

References are float64 functions (float results are judged to 2^-29 of an ulp) and mpmath for the
double overloads. Samples run through the bit patterns, so that every exponent, both signs,
denormals, infinities and NaNs occur. Bounds are those the header's users may rely on.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from fusewright.emit.vecmath import HEADER, parse_blocks, select, vecmath_source
from fusewright.errors import IRError

FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-ffp-contract=fast", "-std=c++17", "-Wall", "-Wextra", "-shared", "-fPIC"]
INF, NAN = float("inf"), float("nan")


def from_torch(function):
    """`function` of tensors as a function of NumPy arrays."""
    return lambda *arrays: function(*map(torch.from_numpy, arrays)).numpy()


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow; accurate in both tails, which torch.sigmoid is not."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


# name: (reference on float64, bound in ulps of the float overload: the worst of 20 to 100 million
# samples, over more offsets of `bit_patterns` than are run here, and a little)
UNARY = {
    "abs": (np.abs, 0),
    "floor": (np.floor, 0),
    "ceil": (np.ceil, 0),
    "trunc": (np.trunc, 0),
    "round": (from_torch(torch.round), 0),
    "sqrt": (np.sqrt, 0.5),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5),
    "exp": (np.exp, 1.1),
    "exp2": (np.exp2, 1),
    "expm1": (np.expm1, 1.5),
    "sigmoid": (sigmoid, 2),
    "tanh": (np.tanh, 1.5),
    "sinh": (np.sinh, 2),
    "cosh": (np.cosh, 2),
    "log": (np.log, 1),
    "log2": (np.log2, 1),
    "log10": (np.log10, 1),
    "log1p": (np.log1p, 1.6),
    "erf": (from_torch(torch.erf), 1.7),
    "erfc": (from_torch(torch.erfc), 4),
    "sin": (np.sin, 2),
    "cos": (np.cos, 2),
    "tan": (np.tan, 4),
    "asin": (np.arcsin, 3),
    "acos": (np.arccos, 2),
    "atan": (np.arctan, 2),
    "asinh": (np.arcsinh, 2),
    "acosh": (np.arccosh, 3),
    "atanh": (np.arctanh, 3),
    "erfinv": (from_torch(torch.erfinv), 4),
    "lgamma": (from_torch(torch.lgamma), 1),
    "digamma": (from_torch(torch.digamma), 1),
}
BINARY = {
    "copysign": (np.copysign, 0),
    "hypot": (np.hypot, 0.5),
    "pow": (np.power, 1),
    "atan2": (np.arctan2, 2),
    "fmod_float": (np.fmod, 0),
}
HELPERS = {"base", "bits", "poly", "power_of_two", "scale", "exp_parts", "scaled_exp", "log_parts"}
HELPERS |= {"erf_near", "trig_parts", "atan_unit"}
SCALAR = {"lgamma", "digamma"}
# double overloads written here, not left to libm, and so judged here: (mpmath function, ulps)
DOUBLE = {
    "exp": (mpmath.exp, 1),
    "expm1": (mpmath.expm1, 2),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), 2),
    "tanh": (mpmath.tanh, 3),
    "log": (mpmath.log, 1),
    "log1p": (mpmath.log1p, 2),
    "erf": (mpmath.erf, 2),
    "erfinv": (mpmath.erfinv, 3),
    "digamma": (mpmath.digamma, 16),  # ten terms of the recurrence cancel down to 0.4
}

LOOP = """
extern "C" void {name}_{real}(const {real}* __restrict x, const {real}* __restrict y,
                              {real}* __restrict out, long n) {{ (void)y;
    _Pragma("omp simd") for (long i = 0; i < n; ++i) out[i] = fw_{name}({arguments}); }}
"""


def loops() -> str:
    """C++ with one loop per function and type over arrays x, y, out of n elements."""
    text = vecmath_source([*UNARY, *BINARY])
    for name in [*UNARY, *BINARY]:
        arguments = "x[i], y[i]" if name in BINARY else "x[i]"
        for real in ("float", "double"):
            text += LOOP.format(name=name, real=real, arguments=arguments)
    return text


class Built:
    """The loops as a shared library, and the lines the compiler reported as vectorised."""

    def __init__(self, folder: Path, compiler: str):
        source, library = folder / "loops.cpp", folder / "loops.so"
        source.write_text(loops())
        command = [compiler, *FLAGS, "-fopt-info-vec", str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.report = done.stderr
        self.library = ctypes.CDLL(str(library))
        self.lines = source.read_text().splitlines()

    def __call__(self, name: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """fw_NAME over arrays of one type."""
        out = np.empty_like(x)
        real = {"float32": "float", "float64": "double"}[x.dtype.name]
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, x if y is None else y, out)]
        getattr(self.library, f"{name}_{real}")(*pointers, ctypes.c_long(x.size))
        return out

    def vectorised(self) -> set[str]:
        """Names like `exp_float` of the loops that the compiler says it vectorised."""
        found = set()
        for line in self.report.splitlines():
            if "loop vectorized" in line and "loops.cpp" in line:
                number = int(line.split(":")[1])
                above = [text for text in self.lines[:number] if text.startswith('extern "C"')]
                found.add(above[-1].split("void ")[1].split("(")[0])
        return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    return Built(tmp_path_factory.mktemp("vecmath"), compiler)


def bit_patterns(step: int = 1021, offset: int = 0) -> np.ndarray:
    """Floats of every sign and exponent, about 2^32 / step of them."""
    return np.arange(offset, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def ulps(got: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance in units in the last place of `got`'s type; infinite where the kinds disagree.

    Beyond the largest float the reference counts as 2^128, and so does an infinite result.
    """
    size = np.abs(reference)
    info = np.finfo(got.dtype)
    usable = np.where(np.isfinite(size) & (size > 0), size, 1.0)
    ulp = np.exp2(np.maximum(np.floor(np.log2(usable)), info.minexp) - info.nmant)
    limit = 2.0**128
    with np.errstate(invalid="ignore"):  # casts of signalling NaNs
        near = np.clip(got.astype(np.float64), -limit, limit) - np.clip(reference, -limit, limit)
    error = np.abs(near) / ulp
    error[np.isnan(got) != np.isnan(reference)] = INF
    error[np.isnan(got) & np.isnan(reference)] = 0
    error[np.isinf(got) & np.isinf(reference) & (got == reference)] = 0
    error[(got == 0) & (reference == 0) & (np.signbit(got) != np.signbit(reference))] = INF
    return error


def assert_close(name, bound, got, reference, *arguments):
    error = ulps(got, reference)
    worst = int(np.argmax(error))
    where = ", ".join(repr(float(a[worst])) for a in arguments)
    assert error[worst] <= bound, (
        f"fw_{name}({where}) = {got[worst]!r}, not {reference[worst]!r}: {error[worst]:.3f} ulp"
    )


@pytest.mark.parametrize("name", UNARY)
def test_float_functions_over_all_exponents(built, name):
    reference, bound = UNARY[name]
    step = 16381 if name in SCALAR else 1021
    x = np.concatenate([bit_patterns(step), np.linspace(-12, 12, 2**18, dtype=np.float32)])
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64))
    assert_close(name, bound, built(name, x), expected, x)


EDGES = [
    0.0,
    1.0,
    2.0,
    3.0,
    0.5,
    2.5,
    1e-45,
    1e-38,
    3.4e38,
    16777215.0,
    16777218.0,
    1e10,
    1.0000001,
]
EDGES = [*EDGES, 0.9999999, INF, NAN]
EDGES = np.array([*EDGES, *[-v for v in EDGES]], np.float32)


def binary_samples():
    """Pairs: random bit patterns, moderate values, bases near 1, small integers, all edge pairs."""
    rng = np.random.default_rng(0)
    count = 2**20
    bits = rng.integers(0, 2**32, (2, count), dtype=np.uint32).view(np.float32)
    moderate = np.exp(3 * rng.normal(size=count)), 8 * rng.normal(size=count)
    near_one = 1 + 1e-3 * rng.normal(size=count), 1e4 * rng.normal(size=count)
    integers = 5 * rng.normal(size=count), rng.integers(-20, 20, count)
    edges = [a.ravel() for a in np.meshgrid(EDGES, EDGES)]
    columns = [bits, moderate, near_one, integers, edges]
    with np.errstate(invalid="ignore"):  # casts of signalling NaNs
        return tuple(np.concatenate([c[k] for c in columns]).astype(np.float32) for k in (0, 1))


@pytest.mark.parametrize("name", BINARY)
def test_float_functions_of_two_arguments(built, name):
    reference, bound = BINARY[name]
    x, y = binary_samples()
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64), y.astype(np.float64))
    assert_close(name, bound, built(name, x, y), expected, x, y)


@pytest.mark.parametrize("name", DOUBLE)
def test_double_functions_against_mpmath(built, name):
    function, bound = DOUBLE[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=400) * s for s in (1e-9, 0.3, 3, 200)])
    least = {"log": 0, "log1p": -1e-3, "digamma": 2}
    x = np.abs(x) + least[name] if name in least else np.tanh(x) if name == "erfinv" else x
    got = built(name, x)
    with mpmath.workdps(40):
        exact = [function(mpmath.mpf(v)) for v in x]
        size = [mpmath.mpf(2) ** max(mpmath.floor(mpmath.log(abs(e), 2)), -1022) for e in exact]
        error = [
            float(abs(mpmath.mpf(g) - e) / s * 2**52)
            for g, e, s in zip(got.tolist(), exact, size)
            if np.isfinite(g)
        ]
    assert max(error) <= bound, f"fw_{name}({x[int(np.argmax(error))]!r}): {max(error):.2f} ulp"


DOUBLE_EDGES = [0.0, -0.0, 5e-324, -5e-324, 2.3e-308, 1e-17, 709.78, 709.8, -745.1, -745.2, -708.5]
DOUBLE_EDGES = np.array([*DOUBLE_EDGES, 1.7e308, -1.7e308, INF, -INF, NAN, 1.0, -1.0])


@pytest.mark.parametrize("name", [*UNARY])
def test_double_functions_at_the_edges(built, name):
    with np.errstate(all="ignore"):
        expected = UNARY[name][0](DOUBLE_EDGES)
    got = built(name, DOUBLE_EDGES)
    np.testing.assert_allclose(got, expected, rtol=1e-15, atol=1e-323)
    real = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[real]), np.signbit(expected[real]))


@pytest.mark.parametrize("name", BINARY)
def test_double_functions_of_two_arguments_at_the_edges(built, name):
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(DOUBLE_EDGES, DOUBLE_EDGES))
    with np.errstate(all="ignore"):
        expected = BINARY[name][0](x, y)
    np.testing.assert_allclose(built(name, x, y), expected, rtol=1e-15, atol=1e-323)


def test_every_float_loop_vectorises(built):
    wanted = {f"{name}_float" for name in [*UNARY, *BINARY] if name not in SCALAR}
    wanted |= {f"{name}_double" for name in set(DOUBLE) - {"erfinv", "digamma"}}
    assert not wanted - built.vectorised()


def test_every_block_is_tested_or_a_helper():
    names = {block.name for block in parse_blocks(HEADER.read_text())}
    assert names == HELPERS | set(UNARY) | set(BINARY)


def test_coefficients_are_those_of_the_fitting_script():
    script = Path(__file__).parents[2] / "tools" / "fit_vecmath.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_function_compiles_from_its_own_selection(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    sources = []
    for name in [*UNARY, *BINARY]:
        sources.append(tmp_path / f"{name}.cpp")
        arguments = "x, x" if name in BINARY else "x"
        uses = [
            f"{real} use({real} x) {{ return fw_{name}({arguments}); }}"
            for real in ("float", "double")
        ]
        sources[-1].write_text("\n".join([vecmath_source([name]), *uses]))
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-function"]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_selection_holds_what_is_needed_once_and_in_file_order():
    text = vecmath_source(["tanh", "exp"])
    assert text == vecmath_source(["exp", "tanh", "exp"])
    assert text.count("float fw_scaled_exp(") == 1
    assert text.index("fw_scale(") < text.index("float fw_exp(") < text.index("float fw_tanh(")
    assert "fw_log" not in text and "//@" not in text


def test_nothing_selected_is_no_text():
    assert vecmath_source([]) == ""


def test_unknown_function_is_refused_by_name():
    with pytest.raises(IRError, match="no skeleton defines the helper fw_cbrt"):
        vecmath_source(["exp", "cbrt"])


@pytest.mark.parametrize(
    "text",
    [
        "//@function a\nx\n",
        "//@function a needs b\nx\n//@end\n//@function b\n//@end\n",
        "//@function a\n//@end\n//@function a\n//@end\n",
    ],
    ids=["open", "forward", "twice"],
)
def test_malformed_markers_are_refused(text):
    with pytest.raises(IRError, match="'a'"):
        parse_blocks(text)


def test_float_overloads_stand_alone():
    """What a kernel in float embeds compiles without any overload for double.

    Each function that computes in double is compiled alone: together they bring each other's
    overloads, and without its own a double converts to float silently.
    """
    blocks = parse_blocks(HEADER.read_text(encoding="utf-8"))
    everything = select(blocks, [block.name for block in blocks], double=False)
    assert "double fw_exp(" not in everything and "//@" not in everything
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Werror=float-conversion", "-x", "c++"]
    alone = [select(blocks, [b.name], double=False) for b in blocks if "double" in b.single]
    for text in (everything, *alone):
        done = subprocess.run([*command, "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
