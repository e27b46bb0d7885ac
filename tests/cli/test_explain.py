"""What explain says: signs, figures, the proof, the program, and the object for programs."""

import io
import re
from pathlib import Path
from typing import get_args

import pytest

from fusewright.cli import main
from fusewright.cli.arguments import STAGES
from fusewright.cli.equations import typeset, wrapped
from fusewright.cli.explain import (
    CLASSES,
    lemmas,
    place,
    plural,
    readable,
    refusal_sentences,
    refusals,
)
from fusewright.cli.figures import delta, duration, quantity
from fusewright.cli.steps import covers
from fusewright.ir.kernel import WhyNot
from fusewright.options import NUMERICS
from fusewright.rewrite.rule import Numerics, Rewrite

from .conftest import Run

# -------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("plain", "set_"),
    [
        ("out[i] = 0.75 * sum(k) x[i, k] * w[k]", "out[i] = 0.75 · Σₖ x[i,k] · w[k]"),
        ("y[i] = max(j, k) -x[i, j, k]", "y[i] = maxⱼₖ -x[i,j,k]"),
        ("y[i, j] = x[max(i, j) - 1]", "y[i,j] = x[max(i,j) - 1]"),
        ("y = a if max(i, j) and b else c", "y = a if max(i, j) and b else c"),
        ("y[i] = sum(q, r) x[i, q, r]", "y[i] = Σ(qr) x[i,q,r]"),
        ("y[i] = x[i, k[i, j]] if i >= 1 else -inf", "y[i] = x[i,k[i,j]] if i ≥ 1 else −∞"),
        ("y = f(a, b) * information", "y = f(a, b) · information"),
    ],
)
def test_equations_are_typeset(plain: str, set_: str):
    assert typeset(plain) == set_


def test_long_equations_hang():
    lines = wrapped("y = " + " + ".join(["term"] * 12), 30)
    assert all(len(line) <= 30 for line in lines)
    assert [line[:4] for line in lines[1:]] == ["    "] * (len(lines) - 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (16, "16 B"),
        (999.6, "1 kB"),
        (4200, "4.2 kB"),
        (137e9, "137 GB"),
        (3e18, "3000 PB"),
    ],
)
def test_quantities(value: float, text: str):
    assert quantity(value, "B") == text


def test_signed_quantities_and_times():
    assert (delta(-2.5e7, "FLOP"), delta(320, "B")) == ("−25 MFLOP", "+320 B")
    times = [duration(s) for s in (2, 0.0151, 98e-6, 3e-9, 0.9999e-3)]
    assert times == ["2 s", "15.1 ms", "98 µs", "3 ns", "1 ms"]


def test_names_for_people():
    assert covers(["reduce_sum[4, 8]", "reduce_sum[4, 8]", "aten.sort.stable"]) == (
        "sum[4,8] (2 times), sort.stable"
    )
    assert readable("reduce_max[]") == "max[scalar]"
    assert plural(1, "kernel") == "1 kernel"
    assert plural(2, "ATen call without a kernel") == "2 ATen calls without a kernel"


def test_places():
    assert place(["line 24, x = x / 2"]) == "line 24, x = x / 2"
    assert place(["a, line 24, x", "b, line 24, x"]) == "line 24 (2 times)"
    assert place(["line 3, x", "line 3, x"]) == "line 3, x (2 times)"
    assert place(["line 9, x", "line 9, y", "line 4, z"]) == "lines 9 (2 times), 4"
    assert place(["line 5, x + y,"]) == "line 5, x + y"
    assert place([""]) == "in values made while rewriting"


# -------------------------------------------------------------------------------------------- proof


def rewrite(rule: str, flops: int, where: str = "line 1, x", numerics: Numerics = "exact"):
    return Rewrite(rule, numerics, where, f"identity of {rule}", "always", flops, 0, "", "")


def test_a_rule_is_one_lemma_with_all_its_places():
    found = lemmas([rewrite("a", -3), rewrite("b", 0), rewrite("a", -4, "line 2, y")])
    assert [(x.rule, x.flops_delta, x.where) for x in found] == [
        ("a", -7, ("line 1, x", "line 2, y")),
        ("b", 0, ("line 1, x",)),
    ]
    assert [x.only_layout for x in found] == [False, True]
    assert not lemmas([rewrite("a", 0, numerics="finite")])[0].only_layout


def test_every_class_of_numerics_is_explained():
    assert tuple(CLASSES) == NUMERICS == get_args(Numerics)


def test_refusals_are_told_once():
    why = [
        WhyNot("reduce_sum[4] into the kernel of exp[4, 8]", "their index spaces differ"),
        WhyNot("reduce_sum[4] into the kernel of exp[4, 8]", "their index spaces differ"),
        WhyNot("reduce_sum[4] into the kernel of log[2]", "their index spaces differ"),
        WhyNot("library call for matmul[4]", "it runs as a loop nest"),
    ]
    assert refusals(why) == {
        "their index spaces differ": {"sum[4]": ("exp[4,8]", "log[2]")},
        "it runs as a loop nest": {"library call for matmul[4]": ()},
    }
    assert list(refusal_sentences(why)) == [
        "sum[4] is not in the kernel of exp[4,8] and log[2]: their index spaces differ.",
        "library call for matmul[4]: it runs as a loop nest.",
    ]


def test_many_refusals_of_one_kind_are_one_sentence():
    why = [WhyNot(f"exp[{k}] into the kernel of log[2]", "rows differ") for k in range(3, 12)]
    (sentence,) = refusal_sentences(why)
    assert sentence.startswith("rows differ: exp[3] (into log[2]); exp[4] (into log[2]); ")
    assert sentence.endswith("; and 3 more.")


# ------------------------------------------------------------------------------------------ command


def test_the_page_reads_as_a_proof(run: Run, problem: Path):
    outcome = run("explain", problem, "--target", "cuda:sm_90a")
    assert outcome.code == 0, outcome.err
    page = outcome.out
    heads = ["The model", "Rewriting", "Therefore", "The program"]
    assert [page.index(f"\n{h}\n") for h in heads] == sorted(page.index(f"\n{h}\n") for h in heads)
    assert "out[i] = Σⱼ (Σₖ x[i,k] · weight[j,k]) / 2" in page
    assert re.search(r"out\[i\] = 0\.5 · Σ\S x\[i,\S\] · \w+\[\S\]", page)
    assert "Σ_j Σ_k a[i,k]·b[k,j] = Σ_k a[i,k]·(Σ_j b[k,j])" in page
    assert "line 13, return torch.sum(x, dim=1)" in page and "∎" in page
    assert re.search(r"in all +\d.*FLOP +\d.*B +\d.*s\n", page)
    assert max(map(len, page.splitlines())) <= 110


def test_an_ascii_stream_and_a_narrow_terminal(problem: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither costs the user the page."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["explain", str(problem), "--target", "cpu"]) == 0
    stream.flush()
    assert b"out[i] = ?? (?? x[i,k] ? weight[j,k]) / 2" in b" ".join(written.getvalue().split())


def test_warnings_come_first(run: Run, tmp_path: Path):
    path = tmp_path / "constant.py"
    path.write_text(
        "import torch\n\nclass Model(torch.nn.Module):\n"
        "    def forward(self, x):\n        return torch.softmax(x, dim=1).mul(0) + x.size(0)\n\n"
        "def get_inputs():\n    return [torch.rand(4, 1)]\n"
    )
    outcome = run("explain", path, "--target", "cpu")
    assert outcome.code == 0, outcome.err
    assert "warning: output 0 is provably constant" in outcome.err
    assert outcome.out.index("Warning: output 0") < outcome.out.index("The model")


def test_the_object_for_programs(run: Run, problem: Path):
    found = run("explain", problem, "--target", "cpu", "--json").json
    assert set(found) >= {
        "problem", "target", "reference", "optimized", "rewrites", "why_not", "warnings",
    }  # fmt: skip
    assert found["optimized"]["flops"] < found["reference"]["flops"]
    assert {"name", "anchor", "covers", "flops", "bytes", "tile"} <= set(
        found["optimized"]["kernels"][0]
    )
    assert {"name", "class", "where", "precondition", "flops_delta", "bytes_delta"} <= set(
        found["rewrites"][0]
    )


def test_the_stages_are_the_pipelines():
    from fusewright.cli.compiling import ACTIVITIES
    from fusewright.pipeline import STAGES as RUN

    assert STAGES == RUN == tuple(ACTIVITIES)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("captured", "weight: float32[24, 16]  param"),
        ("rewritten", "sum-through-contraction"),
        ("scheduled", "kernel "),
        ("kernels", 'extern "C"'),
        ("emitted", "class ModelNew"),
    ],
)
def test_one_stage_alone(run: Run, problem: Path, stage: str, said: str):
    plain = run("explain", problem, "--target", "cpu", "--stage", stage)
    assert plain.code == 0 and said in plain.out
    for_programs = run("explain", problem, "--target", "cpu", "--stage", stage, "--json").json
    assert for_programs == {"stage": stage, "text": plain.out} or plain.out.startswith(
        for_programs["text"]
    )
