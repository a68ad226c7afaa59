"""The CPU's own path to posting lists: one C file, compiled once where there is a compiler.

Nothing here is needed: where ``kernel_for`` gives None the portable layouts do the same work in
PyTorch.
"""
