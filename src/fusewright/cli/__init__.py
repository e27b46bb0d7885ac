"""The command line: `main`, exit codes, and how errors reach the user. No command's work is here.

Nothing heavy is imported before a command is known, so that `--help` answers at once: `compiling`
needs torch, `measuring` starts processes that do.

Exit codes: 0 done or accepted; 1 rejected, or a machine or suite with something amiss; 2 bad usage,
unusable input or output, or a verdict that cannot be told; 3 the forward pass cannot be captured;
4 a defect of fusewright; 130 interrupted.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from fusewright.errors import FusewrightError, IRError
from fusewright.options import add_interpreter_to_path

from .arguments import build_parser

__all__ = ["main"]

INTERRUPTED = 130
DEFECT = IRError.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv[1:]` when None); returns the exit code.

    `--help`, `--version` and nothing to do end in SystemExit, as argparse has it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _accept_any_text(sys.stdout)
    _accept_any_text(sys.stderr)
    # ninja is installed beside the interpreter; emitted files build with it.
    add_interpreter_to_path()
    try:
        chosen = build_parser().parse_args(words)
        module, _, name = chosen.run.partition(":")
        code = getattr(import_module(f"{__name__}.{module}"), name)(chosen)
        sys.stdout.flush()
        return code
    except FusewrightError as error:
        return _failed(words, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _failed(words, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`); Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _failed(words, f"{type(error).__name__}: {error}", DEFECT)


def _accept_any_text(stream: object) -> None:
    """An ASCII terminal gets a question mark for Σ; it must not cost the user the run."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


def _failed(words: Sequence[str], message: str, code: int) -> int:
    """Tell what went wrong on stderr and, for a program, as one object on stdout."""
    print(f"fusewright: {message}", file=sys.stderr)
    if code == DEFECT:
        print(
            "fusewright: this is a defect of fusewright, not of your model; please report it with "
            "the problem file and this output",
            file=sys.stderr,
        )
    if "--json" in words:
        import json

        print(json.dumps(_error_object(words, message)))
    return code


def _error_object(words: Sequence[str], message: str) -> dict[str, object]:
    """`verify --json` has a verdict even then: whoever reads it must never take silence for yes."""
    if words[:1] != ["verify"]:
        return {"error": message}
    check = {"name": "run", "outcome": "fail", "detail": message}
    nothing = {"reference": None, "candidate": None, "minimum_detectable": None}
    return {"verdict": "inconclusive", "checks": [check], "error": nothing}
