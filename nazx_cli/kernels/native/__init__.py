"""The CPU's own path to posting lists: C compiled once where there is a compiler.

``attention.c`` says what is computed; ``lists.h`` weighs posting lists; ``rows.h`` (float32) and
``tiles.h`` (bfloat16, where the CPU has matrix units) make scores from states and mix them.

Nothing here is needed: where ``kernel_for`` gives None the same work is done in PyTorch.
"""
