"""Times the first import of a file in a fresh process, with the building of its kernels.

torch itself is imported before the clock starts; the extension cache is the caller's, and empty.
"""

import json
import os
from pathlib import Path

from fusewright.errors import FusewrightError
from fusewright.run.bench.subject import build


def main(arguments: list[str]) -> int:
    """`arguments`: the file to import and where to write the seconds, as JSON."""
    os.dup2(2, 1)  # what the file prints must not be taken for progress
    try:
        outcome: dict[str, float | str] = {"import_s": build(Path(arguments[0]))}
    except FusewrightError as error:
        outcome = {"error": str(error)}
    Path(arguments[1]).write_text(json.dumps(outcome))
    return 0
