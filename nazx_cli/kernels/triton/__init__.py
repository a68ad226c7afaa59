"""Posting lists on a CUDA device: one Triton kernel, in place of PyTorch there.

Triton is optional: where ``support.usable`` says no, PyTorch does the same work. ``weigh`` alone
imports it. The kernel is checked in Triton's interpreter and by the compiler for CUDA; it has
never run on a GPU.
"""
