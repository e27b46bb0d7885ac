"""Times of a candidate file against its reference; docs/trust.md says what must not fool them.

`bench` is the entry point, `render.render_bench` the table for people. Programs are timed in fresh
processes; this package's modules say in their first lines which of them run there.
"""

from fusewright.run.bench.driver import BASELINES, BenchError, bench
from fusewright.run.bench.report import BenchReport, Finding

__all__ = ["BASELINES", "BenchError", "BenchReport", "Finding", "bench"]
