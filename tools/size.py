"""Size report of the source tree: lines per package, function lengths, what is too long.

Run as `python tools/size.py [ROOT]`. Prints tables; exits 1 only when a hard limit is broken (a
file of more than 600 lines, a function of more than 100). The house limits are lower (500 and 80);
what exceeds them is listed. A function's length leaves out its docstring: documentation is free.
"""

import ast
import io
import math
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_SOFT, FILE_HARD = 500, 600
FUNCTION_SOFT, FUNCTION_HARD = 80, 100
SKELETON_SUFFIXES = (".cuh", ".cu", ".hpp", ".h", ".cpp", ".inc")
LAYOUT_TOKENS = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)
Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Function:
    """One function: where it is and how many lines it has without its docstring."""

    path: Path
    line: int
    name: str
    length: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python file: its lines by kind (blank lines count only in `total`) and its functions."""

    path: Path
    total: int
    code: int
    comment: int
    doc: int
    functions: tuple[Function, ...]


def docstring_lines(node: Definition) -> set[int]:
    """Line numbers of the node's docstring, empty when it has none."""
    if ast.get_docstring(node, clean=False) is None:
        return set()
    expression = node.body[0]
    return set(range(expression.lineno, (expression.end_lineno or expression.lineno) + 1))


def definitions(tree: ast.AST) -> Iterator[Definition]:
    return (node for node in ast.walk(tree) if isinstance(node, Definition))


def token_lines(text: str) -> tuple[set[int], set[int]]:
    """(lines that hold code, lines that hold a comment)."""
    code: set[int] = set()
    comment: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment.add(token.start[0])
        elif token.type not in LAYOUT_TOKENS:
            code.update(range(token.start[0], token.end[0] + 1))
    return code, comment


def measure(path: Path) -> SourceFile:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    doc: set[int] = set()
    functions: list[Function] = []
    for node in definitions(tree):
        own_doc = docstring_lines(node)
        doc |= own_doc
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - len(own_doc)
            functions.append(Function(path, node.lineno, node.name, length))
    code, comment = token_lines(text)
    code -= doc
    return SourceFile(
        path,
        total=len(text.splitlines()),
        code=len(code),
        comment=len(comment - code),
        doc=len(doc),
        functions=tuple(functions),
    )


def package_of(path: Path, root: Path) -> str:
    """`src/fusewright/capture` for a file of that package, `tests` for anything under tests."""
    parts = path.relative_to(root).parts
    depth = 3 if parts[0] == "src" else 1
    return "/".join(parts[: min(depth, len(parts) - 1)])


def percentile(values: list[int], fraction: float) -> int:
    """The smallest value with at least `fraction` of the values at or below it (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def print_packages(files: list[SourceFile], root: Path) -> None:
    print(f"{'package':<28}{'files':>6}{'lines':>8}{'code':>8}{'comment':>9}{'doc':>7}")
    for package in sorted({package_of(file.path, root) for file in files}):
        print_row(package, [file for file in files if package_of(file.path, root) == package])
    print_row("src in all", [file for file in files if is_source(file.path, root)])


def print_row(label: str, members: list[SourceFile]) -> None:
    total, code, comment, doc = (
        sum(getattr(file, kind) for file in members) for kind in ("total", "code", "comment", "doc")
    )
    print(f"{label:<28}{len(members):>6}{total:>8}{code:>8}{comment:>9}{doc:>7}")


def is_source(path: Path, root: Path) -> bool:
    return path.relative_to(root).parts[0] == "src"


def print_skeletons(root: Path) -> None:
    skeletons = sorted(path for path in root.glob("src/**/*") if path.suffix in SKELETON_SUFFIXES)
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in skeletons)
    print(f"{'skeleton text':<28}{len(skeletons):>6}{lines:>8}")


def print_functions(functions: list[Function]) -> None:
    lengths = [function.length for function in functions]
    if lengths:
        print(
            f"functions in src: {len(lengths)}, lines: median {statistics.median(lengths):g}, "
            f"p95 {percentile(lengths, 0.95)}, max {max(lengths)}"
        )


def offenders(files: list[SourceFile], file_limit: int, function_limit: int) -> list[str]:
    """One line for each file and function above the limits, in path order."""
    found: list[str] = []
    for file in files:
        if file.total > file_limit:
            found.append(f"{file.path}: {file.total} lines (limit {file_limit})")
        found.extend(
            f"{file.path}:{function.line}: {function.name} has {function.length} lines "
            f"(limit {function_limit})"
            for function in file.functions
            if function.length > function_limit
        )
    return found


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    folders = ("src", "tests", "tools", "benchmarks")
    paths = sorted(path for folder in folders for path in root.glob(f"{folder}/**/*.py"))
    files = [measure(path) for path in paths]
    print_packages(files, root)
    print_skeletons(root)
    print_functions([f for file in files if is_source(file.path, root) for f in file.functions])
    for line in offenders(files, FILE_SOFT, FUNCTION_SOFT):
        print(f"long: {line}")
    broken = offenders(files, FILE_HARD, FUNCTION_HARD)
    for line in broken:
        print(f"HARD LIMIT: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
