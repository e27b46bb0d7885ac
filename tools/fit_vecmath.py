"""Fit the polynomials of `vecmath.hpp` and `device.cuh`: where their coefficients come from.

Holds a small Remez exchange in mpmath and the table of fits; nothing imports it at run time.
`python tools/fit_vecmath.py` prints the coefficients as C literals with the error of each fit,
`--check` exits 1 unless the headers hold every printed literal, names select fits.

Method: weighted minimax fit by the Remez exchange on a fixed Chebyshev-distributed grid
(W. J. Cody, W. Fraser, J. F. Hart, "Rational Chebyshev approximation using linear equations",
Numer. Math. 12, 1968). Coefficients are then rounded one at a time, from the lowest power (the one
whose rounding costs most) upwards, and the rest refitted around the rounded ones, in the spirit of
N. Brisebarre and S. Chevillard, "Efficient polynomial L-infinity approximations", ARITH 2007.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpmath import mp, mpf

mp.dps = 45
SKELETONS = Path(__file__).parents[1] / "src/fusewright/emit/skeletons"
HEADERS = ("vecmath.hpp", "device.cuh")
GRID = 801
Real = Callable[[mpf], mpf]


@dataclass(frozen=True, slots=True)
class Fit:
    """One polynomial: `target(x)` on [lo, hi] by powers of x, error weighted by `weight(x)`."""

    name: str
    target: Real
    weight: Real
    lo: float
    hi: float
    degree: int
    double: bool = False


def chebyshev_grid(lo: mpf, hi: mpf, count: int) -> list[mpf]:
    """`count` points of [lo, hi], denser at the ends where the error of a fit alternates faster."""
    half = (hi - lo) / 2
    return [lo + half * (1 - mp.cos(mp.pi * k / (count - 1))) for k in range(count)]


def alternation(error: list[mpf], size: int) -> list[int]:
    """Indices of `size` consecutive sign-alternating extrema of `error`, largest ends kept."""
    best: list[int] = []
    for i, e in enumerate(error):
        if best and (error[best[-1]] > 0) == (e > 0):
            if abs(e) > abs(error[best[-1]]):
                best[-1] = i
        else:
            best.append(i)
    while len(best) > size:
        best.pop(0 if abs(error[best[0]]) < abs(error[best[-1]]) else -1)
    return best


def levelled(rows: list[list[mpf]], values: list[mpf], weights: list[mpf], at: list[int]):
    """Coefficients whose weighted error has equal size and alternating sign at the points `at`."""
    size = len(at)
    system = mp.matrix(size, size)
    right = mp.matrix(size, 1)
    for r, i in enumerate(at):
        for c, value in enumerate(rows[i]):
            system[r, c] = value * weights[i]
        system[r, size - 1] = mpf(-1) ** r
        right[r] = values[i] * weights[i]
    return list(mp.lu_solve(system, right))[:-1]


def remez(rows: list[list[mpf]], values: list[mpf], weights: list[mpf]) -> tuple[list[mpf], mpf]:
    """Weighted minimax coefficients over basis `rows` (grid x terms) and the largest error."""
    terms, last = len(rows[0]), len(rows) - 1
    at = [round((1 - np.cos(np.pi * (k + 0.5) / (terms + 1))) / 2 * last) for k in range(terms + 1)]
    for _ in range(12):
        coefficients = levelled(rows, values, weights, at)
        error = [(v - mp.fdot(coefficients, row)) * w for row, v, w in zip(rows, values, weights)]
        worst = max(abs(e) for e in error)
        level = min(abs(error[i]) for i in at)
        following = alternation(error, terms + 1)
        if len(following) < terms + 1 or worst <= level * mpf("1.001"):
            break
        at = following
    return coefficients, worst


def rounded(value: mpf, double: bool) -> mpf:
    """The nearest double or float to `value`."""
    return mpf(float(value)) if double else mpf(float(np.float32(float(value))))


def lawson(columns: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Multiples of `columns` (points x terms) that make max |error - columns @ result| small.

    Iteratively reweighted least squares (C. L. Lawson, 1961), for bases that vanish inside the
    interval, where the Remez exchange has no alternation to follow. The best iterate is kept.
    """
    best, found = np.abs(error).max(), np.zeros(columns.shape[1])
    share = np.full(len(error), 1 / len(error))
    for _ in range(80):
        root = np.sqrt(share)
        step = np.linalg.lstsq(columns * root[:, None], error * root, rcond=None)[0]
        size = np.abs(error - columns @ step)
        if size.max() < best:
            best, found = size.max(), step
        share = share * size / (share * size).sum()
    return found


def solve(fit: Fit) -> tuple[list[mpf], mpf]:
    """Representable coefficients, lowest power first, and the largest weighted error they leave."""
    # Grid points where the weight or the target has no limit (x = 0) are stepped over.
    grid = [x for x in chebyshev_grid(mpf(fit.lo), mpf(fit.hi), GRID) if abs(x) > mpf("1e-12")]
    values, weights = [fit.target(x) for x in grid], [fit.weight(x) for x in grid]
    powers = [[x**k for k in range(fit.degree + 1)] for x in grid]
    columns = np.array([[float(v * w) for v in row] for row, w in zip(powers, weights)])
    found, worst = remez(powers, values, weights)
    for k in range(fit.degree + 1):
        found[k] = rounded(found[k], fit.double)
        error = [(v - mp.fdot(found, row)) * w for v, row, w in zip(values, powers, weights)]
        worst = max(abs(e) for e in error)
        if k < fit.degree:
            scaled = np.array([float(e / worst) for e in error])
            for j, step in enumerate(lawson(columns[:, k + 1 :], scaled), start=k + 1):
                found[j] += worst * mpf(float(step))
    return found, worst


def literal(value: mpf, double: bool) -> str:
    """`value` as a C literal that reads back to the same number."""
    if double:
        return f"{float(value):.17g}"
    text = f"{float(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def tail(function: Real, head: Real, power: int) -> Real:
    """(function - head) / x^power, the part of a function that its leading terms leave."""
    return lambda x: (function(x) - head(x)) / x**power


def odd_tail(function: Real) -> Real:
    """(f(x) - x) / x^3 as a function of z = x^2, for odd f with slope one."""
    return lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def odd_weight(function: Real) -> Real:
    """Weight that makes the error of `odd_tail` relative to f."""
    return lambda z: z * mp.sqrt(z) / function(mp.sqrt(z))


LN2_HALF = 0.3467  # ln(2)/2 and a little: the rounded quotient may miss the nearest integer
QUARTER = 0.61686  # (pi/4)^2 and a little
ROOT = float(mp.sqrt(2))


def log_tail(f: mpf) -> mpf:
    """(log1p(f) - f + f^2/2) / f^3."""
    return (mp.log1p(f) - f + f * f / 2) / f**3


def erfc_root(a: mpf) -> mpf:
    """erfc(a)^(1/8): smooth enough for a short polynomial; three squarings give erfc back."""
    return mp.erfc(a) ** (mpf(1) / 8)


def scaled_erfc(t: mpf) -> mpf:
    """(1 + 2a) exp(a^2) erfc(a) at t = (a - 2) / (a + 2), which maps [0, 10.2] to a short range."""
    a = 2 * (1 + t) / (1 - t)
    return (1 + 2 * a) * mp.exp(a * a) * mp.erfc(a)


def erfinv_ratio(w: mpf) -> mpf:
    """erfinv(x) / x at w = -log(1 - x^2)."""
    x = mp.sqrt(-mp.expm1(-w))
    return mp.erfinv(x) / x


def log2_ratio(s: mpf) -> mpf:
    """log2((1 + s) / (1 - s)) / s."""
    return 2 * mp.atanh(s) / (s * mp.ln(2))


FITS = (
    Fit(
        "exp", tail(mp.exp, lambda r: 1 + r, 2), lambda r: r * r / mp.exp(r), -LN2_HALF, LN2_HALF, 4
    ),
    Fit(
        "expm1",
        tail(mp.exp, lambda r: 1 + r, 2),
        lambda r: r * r / mp.expm1(r),
        -LN2_HALF,
        LN2_HALF,
        5,
    ),
    Fit("exp2", lambda r: (2**r - 1) / r, lambda r: r / 2**r, -0.5, 0.5, 5),
    Fit("log", log_tail, lambda f: f**3 / mp.log1p(f), ROOT / 2 - 1.001e-7 - 1, ROOT - 0.9999, 8),
    Fit("tanh", odd_tail(mp.tanh), odd_weight(mp.tanh), 0, 0.3601, 4),
    Fit(
        "erf",
        lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
        lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)),
        0,
        1.4401,
        7,
    ),
    Fit(
        "erf_tail",
        lambda t: erfc_root(t + mpf("2.5")),
        lambda t: 8 * erfc_root(t + mpf("2.5")) ** 7 / mp.erf(t + mpf("2.5")),
        -1.3001,
        1.5,
        7,
    ),
    Fit(
        "erf_double",
        lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
        lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)),
        0,
        1.0001,
        11,
        double=True,
    ),
    Fit(
        "erf_tail_double",
        scaled_erfc,
        lambda t: mp.erfc(2 * (1 + t) / (1 - t)) / scaled_erfc(t),
        -0.3334,
        0.5001,
        15,
        double=True,
    ),
    Fit("erfc", scaled_erfc, lambda t: 1 / scaled_erfc(t), -0.6001, 0.6722, 8),
    Fit("sin", odd_tail(mp.sin), odd_weight(mp.sin), 0, QUARTER, 3),
    Fit(
        "cos",
        lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
        lambda z: z**2 / mp.cos(mp.sqrt(z)),
        0,
        QUARTER,
        2,
    ),
    Fit("one_plus_erf", lambda t: mp.log(mp.erfc(t), 2), lambda t: mp.log(2), 0, 4.3, 7),
    Fit("sinh", odd_tail(mp.sinh), odd_weight(mp.sinh), 0, 1.0001, 3),
    Fit("asin", odd_tail(mp.asin), odd_weight(mp.asin), 0, 0.2501, 4),
    Fit("atan", odd_tail(mp.atan), odd_weight(mp.atan), 0, 1, 8),
    Fit(
        "erfinv",
        lambda t: erfinv_ratio(t + mpf("2.5")),
        lambda t: 1 / erfinv_ratio(t + mpf("2.5")),
        -2.4999999,
        2.5,
        9,
    ),
    Fit(
        "erfinv_tail",
        lambda t: erfinv_ratio((t + 3) ** 2),
        lambda t: 1 / erfinv_ratio((t + 3) ** 2),
        -0.7641,
        1,
        9,
    ),
    Fit(
        "erfinv_far",
        lambda t: erfinv_ratio((t + 4) ** 2),
        lambda t: 1 / erfinv_ratio((t + 4) ** 2),
        -1.7641,
        2.1,
        6,
    ),
    Fit(
        "pow_log2",
        lambda z: log2_ratio(mp.sqrt(z)),
        lambda z: 1 / log2_ratio(mp.sqrt(z)),
        0,
        0.0295,
        5,
        double=True,
    ),
    Fit(
        "exp_double",
        tail(mp.exp, lambda r: 1 + r, 2),
        lambda r: r * r / mp.expm1(r),
        -LN2_HALF,
        LN2_HALF,
        10,
        double=True,
    ),
    Fit(
        "log_double",
        lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z,
        lambda z: z * mp.sqrt(z) / (2 * mp.atanh(mp.sqrt(z))),
        0,
        0.0295,
        6,
        double=True,
    ),
)


def turn_chunks() -> list[mpf]:
    """1/(2 pi) as a sum of five parts of 29 bits, whose products with floats are exact, and a rest.

    The rest is rounded to a double at 2^-200; reduction of the largest float to 24 bits beyond the
    closest that a float comes to a multiple of pi/2 needs 2^-186.
    """
    mp.dps = 80
    rest, parts = 1 / (2 * mp.pi), []
    for _ in range(5):
        step = mpf(2) ** (mp.floor(mp.log(rest, 2)) - 28)
        parts.append(mp.floor(rest / step) * step)
        rest -= parts[-1]
    return [*parts, rounded(rest, double=True)]


def in_order(literals: list[str], text: str) -> bool:
    """Whether `text` holds the literals one after another (other text may lie between)."""
    position = 0
    for each in literals:
        position = text.find(each, position) + 1
        if position == 0:
            return False
    return True


def report(name: str, literals: list[str], error: str, header: str | None) -> bool:
    """Print one list of literals; whether the header, if given, holds it (in either order)."""
    agrees = header is None or in_order(literals, header) or in_order(literals[::-1], header)
    print(f"{name}: {error}: {', '.join(literals)}{'' if agrees else '  NOT IN THE HEADER'}")
    return agrees


def main() -> int:
    """Fit, print, and with `--check` compare against the header."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="fits to do (default: all)")
    parser.add_argument("--check", action="store_true", help="exit 1 unless the headers agree")
    options = parser.parse_args()
    header = "".join((SKELETONS / h).read_text() for h in HEADERS) if options.check else None
    agree = True
    for fit in FITS:
        if not options.names or fit.name in options.names:
            coefficients, error = solve(fit)
            literals = [literal(c, fit.double) for c in coefficients]
            size = f"2^{float(mp.log(error, 2)):.1f}"
            agree &= report(fit.name, literals, size, header)
    if not options.names or "turn_chunks" in options.names:
        agree &= report("turn_chunks", [literal(c, True) for c in turn_chunks()], "exact", header)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
