"""`python -m benchmarks kernels`: single instructions beside the machine's ceilings and torch's own kernels."""
