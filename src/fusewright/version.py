"""The version, as a constant: emitted files name it, whether or not the package is installed."""

VERSION = "0.1.0"
