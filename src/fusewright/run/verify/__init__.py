"""Verification of a candidate file against a reference file: see docs/trust.md for what it means.

`verify` is the entry point and `render_verify` the table for people. Reference and candidate each
run in a process of their own; this package's modules say in their first lines where they run.
"""

from fusewright.run.verify.driver import verify
from fusewright.run.verify.isolate import Nursery
from fusewright.run.verify.report import Check, ErrorSummary, VerifyReport, render_verify

__all__ = ["Check", "ErrorSummary", "Nursery", "VerifyReport", "render_verify", "verify"]
