"""What runs things: compilers, verifier, benchmark, suite. No capture, rewriting or emission."""
