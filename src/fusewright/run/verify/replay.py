"""Makes one comparison of a verification again, in one process, for a debugger to look into.

`python -m fusewright.run.verify.replay REF.py NEW.py --inputs heavy:12 --weights heavy:3`
draws the same inputs and weights, calls both modules and prints how far the candidate is off. There
is no isolation here: believe `fusewright verify`, look with this.
"""

import argparse
import tempfile
from pathlib import Path

from fusewright.run.verify import answers, drawing, referee, runner
from fusewright.run.verify.book import Book


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fusewright.run.verify.replay")
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inputs", default="given:0", help="KIND:SEED or KIND:SEED:ROWS")
    parser.add_argument("--weights", default="given:0", help="KIND:SEED")
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args(words)


def replay(chosen: argparse.Namespace, folder: str) -> list[str]:
    """One line for each output, buffer and input that the call made or changed."""
    book, candidate = Book(runner.Session()), runner.Session()
    runner.load(book.session, str(chosen.reference), "Model", chosen.device, poison=False)
    init = drawing.init_arguments(book, f"{folder}/init")
    runner.construct(book.session, "reference", init, "cpu")
    drawing.draw_weights(book, "given", "given", 0, f"{folder}/given")
    kind, seed = chosen.weights.split(":")
    weights = drawing.draw_weights(book, "w", kind, int(seed), f"{folder}/w")
    kind, seed, *rows = chosen.inputs.split(":")
    count = int(rows[0]) if rows else None
    inputs = drawing.draw_inputs(book, "x", kind, int(seed), f"{folder}/x", count)
    runner.load(candidate, str(chosen.candidate), "ModelNew", chosen.device, poison=False)
    runner.construct(candidate, "main", init, "cpu")
    runner.load_state(candidate, "main", weights, "load")
    runner.train(candidate, "main", chosen.mode == "train")
    runner.put(candidate, "x", inputs, "plain")
    plan = {"slot": "main", "inputs": "x", "seed": chosen.seed, "prefix": f"{folder}/out"}
    report = runner.call(candidate, state=weights, **plan)
    referee.expect(book, "p", "w", "x", chosen.seed, chosen.mode == "train")
    found = answers.judge_call(book, "p", report["output"], report["effects"])
    return [
        f"{f['path']}: {'wrong' if f['ok'] is False else 'right'}: {f['reason']}" for f in found
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for line in replay(parse(), folder):
            print(line)


if __name__ == "__main__":
    main()
