"""The version, as a constant: emitted files name it, and must not depend on how it was installed."""

VERSION = "0.1.0"
