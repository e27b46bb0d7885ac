"""Prints kernels as C++ and CUDA text and writes the ModelNew file; fusion is decided before."""
