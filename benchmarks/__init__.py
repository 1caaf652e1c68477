"""Longspan beside its peers: speed on real texts and quality on retrieval sets (`python -m benchmarks`)."""
