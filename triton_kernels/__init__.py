"""Longspan's GPU kernels; installed as `longspan.triton_kernels`."""
