"""What the reference itself shows, as commands of the referee: whether a sample of the batch may
stand for the whole, and how far it errs on inputs of another layout."""

from dataclasses import replace

from fusewright.run.verify import (
    drawing,
    judge,
    metrics,
    oracle,
    referee,
    roundings,
    runner,
    tensors,
)
from fusewright.run.verify.book import Book

# Relative to the output's rms: agreement of sample and whole in float64, far below any bound.
_SAME_IN_FLOAT64 = 1e-10


def is_separable(book: Book, name: str) -> bool:
    """Whether a sample of the batch gives in float64 the rows that the whole batch gave, in
    training and in evaluation alike.

    Then a sample may stand for the whole. Randomness and side effects make the question void.
    """
    expectation = referee.expectation_of(book, name)
    point = expectation.point
    sample = referee.draw_sample(book, point.inputs)
    if sample is None or expectation.random or expectation.changed:
        return False
    if expectation.wide is None:
        return expectation.oracle.startswith("float64 in")
    inputs = tensors.take_sample(referee.fresh_inputs(book, point), sample)
    wide = {p: t for p, t in expectation.wide.items() if p.startswith("output")}
    if not all(t.ndim and t.shape[0] == sample.total for t in wide.values()):
        return False
    try:
        parts = [
            next(roundings.wide_runs(book, replace(point, train=mode), inputs, allowed=False))
            for mode in (True, False)
        ]
    except oracle.OracleUnavailable:
        # The forward does not take other batch sizes.
        return False
    return all(
        oracle.agree(part[p], sample.of(t), _SAME_IN_FLOAT64)
        for part in parts
        for p, t in wide.items()
    )


def own_errors(book: Book, name: str, layout: str) -> dict[str, float]:
    """Relative L2 errors, by path, that the reference's own call at the point `name` excuses, where
    its inputs are laid out otherwise: libraries take other ways, and err otherwise, then."""
    expectation = referee.expectation_of(book, name)
    point, session = expectation.point, book.session
    referee.prepare(book, "reference", replace(point, sample=None))
    runner.put(session, "point", drawing.inputs(book, point.inputs), layout)
    output = oracle.run(session.slots["reference"], session.inputs["point"], point.seed).output
    excused = {}
    for path, leaf in tensors.tensor_leaves(output):
        tensor = point.sample.of(leaf) if point.sample else leaf
        found = judge.judge(tensor, expectation.expected[f"output{path}"])
        if found.ok is False:
            excused[found.path] = metrics.NORM_FACTOR * found.norm
    return excused


COMMANDS = {"is_separable": is_separable, "own_errors": own_errors}
