"""Whether a sample of the batch may stand for the whole, as a command of the referee."""

from dataclasses import replace

from fusewright.run.verify import oracle, referee, tensors
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
            next(referee.wide_runs(book, replace(point, train=mode), inputs, allowed=False))
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


COMMANDS = {"is_separable": is_separable}
