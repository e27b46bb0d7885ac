"""The errors a user can meet. No logic lives here: each class says which stage refused and why.

Exit codes of the command line are attached to the classes so that there is one table of them.
"""


class FusewrightError(Exception):
    """Base of errors with a message meant for the user; `exit_code` is the command's status."""

    exit_code = 2


class ProblemError(FusewrightError):
    """The problem file cannot be used: missing, not Python, no `Model`, a failing constructor."""


class CaptureError(FusewrightError):
    """The forward pass cannot be captured; the message names the op and the user's source line."""

    exit_code = 3


class IRError(FusewrightError):
    """A node or kernel breaks a rule of the IR: a defect of fusewright, never of the user."""

    exit_code = 4


class BuildError(FusewrightError):
    """No compiler, or it refused the emitted source; the source is kept for inspection."""


class OutputError(FusewrightError):
    """The output file cannot be written, or would overwrite the input."""


class UsageError(FusewrightError):
    """An option or a combination of options that has no meaning."""
