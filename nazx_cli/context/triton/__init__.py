"""Posting lists on a CUDA device: one Triton kernel, in place of the portable layouts there.

Triton is optional: where ``support.usable`` says no, the portable layouts do the same work in
PyTorch. ``weigh`` alone imports it. The kernel is checked in Triton's interpreter and by the
compiler for CUDA; it has never run on a GPU.
"""
