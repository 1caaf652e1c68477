"""`python -m benchmarks cpu`: Longspan beside its peers on this machine's CPU, one file per workload."""
