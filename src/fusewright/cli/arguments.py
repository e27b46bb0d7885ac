"""The grammar of the command line, as argparse data. Imports nothing that takes time.

Each command's `run` names `module:function` of this package; `main` imports it when it is needed.
"""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from fusewright.errors import UsageError
from fusewright.options import BINDINGS, NUMERICS, PRECISIONS, TARGETS
from fusewright.version import VERSION

STAGES = ("captured", "interface", "rewritten", "scheduled", "kernels", "emitted")
DEVICES = ("auto", "cpu", "cuda")
DESCRIPTION = "Turn a PyTorch model into one standalone file of its own fused kernels."
EXIT_CODES = (
    "exit codes: 0 done or accepted, 1 rejected, 2 bad usage or unusable files, "
    "3 the forward pass cannot be captured, 4 a defect of fusewright"
)


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process, so that `--json` can report it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage()}".rstrip())


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the namespace it makes has `run` and the command's options."""
    parser = _Parser(prog="fusewright", description=DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"fusewright {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _optimize(_command(commands, "optimize", "compiling:optimize", "write ModelNew, check, time"))
    _explain(_command(commands, "explain", "compiling:explain", "equations, rewrites, kernels"))
    _verify(_command(commands, "verify", "measuring:verify", "whether NEW may stand for REF"))
    _bench(_command(commands, "bench", "measuring:bench", "how fast NEW is beside REF"))
    _suite(_command(commands, "suite", "suite:suite", "all of it for many problems"))
    _command(commands, "doctor", "measuring:doctor", "what this machine has and lacks")
    return parser


def _command(commands: Any, name: str, run: str, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def _compilation(parser: argparse.ArgumentParser) -> None:
    """Options of every command that compiles; a default of None leaves it to the environment."""
    parser.add_argument("--target", choices=TARGETS, help="machine to write for (default: auto)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="arithmetic of matrix products (default: match)"
    )
    parser.add_argument(
        "--numerics", choices=NUMERICS, help="how freely to rewrite (default: finite)"
    )
    parser.add_argument("--binding", choices=BINDINGS, help="how kernels are called (default: raw)")
    parser.add_argument(
        "--tune",
        action="store_true",
        default=None,
        help="measure ways to compute products on the device here, once; keep the times in a table",
    )
    parser.add_argument(
        "--tuned",
        action="store_true",
        default=None,
        help="choose by the times that --tune has kept for the device here",
    )


def _optimize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", type=Path, metavar="PROBLEM.py")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="NEW.py",
        help="file to write (default: <problem>_fused.py in the current folder)",
    )
    _compilation(parser)
    parser.add_argument(
        "--no-check", action="store_true", help="only write the file: neither verify nor time it"
    )


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", type=Path, metavar="PROBLEM.py")
    _compilation(parser)
    parser.add_argument("--stage", choices=STAGES, help="print what this stage made, and no more")


def _pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", type=Path, metavar="REF.py", help="defines Model")
    parser.add_argument("candidate", type=Path, metavar="NEW.py", help="defines ModelNew")
    parser.add_argument("--device", choices=DEVICES, default="auto")


def _verify(parser: argparse.ArgumentParser) -> None:
    _pair(parser)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="match", help="arithmetic NEW may use"
    )
    parser.add_argument("--seeds", type=int, default=3, help="draws of the inputs (default: 3)")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds for any single step (default: 300)"
    )
    parser.add_argument(
        "--sanitize", action="store_true", help="also one call under compute-sanitizer (CUDA)"
    )


def _bench(parser: argparse.ArgumentParser) -> None:
    _pair(parser)
    _baselines(parser)
    _duration(parser)
    parser.add_argument("--seed", type=int, default=0, help="of inputs and of the order of runs")


def _suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE")
    _compilation(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("out/suite"), help="folder of results (default: out/suite)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="problems at a time (default: 1)")
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds for a step of a problem (default: 600)"
    )
    parser.add_argument("--no-verify", action="store_true", help="time, but do not verify")
    parser.add_argument("--no-bench", action="store_true", help="verify, but do not time")
    _baselines(parser)
    _duration(parser)


def _duration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=60, help="rounds at most (default: 60)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds of timing at most (default: 20)"
    )


def _baselines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baselines",
        default="eager,compile",
        metavar="NAMES",
        help="of eager, compile, compile-max, with commas (default: eager,compile)",
    )
