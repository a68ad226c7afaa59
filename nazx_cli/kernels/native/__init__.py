"""The CPU's own path: C compiled once where there is a compiler.

``attention.c`` attends over posting lists: ``lists.h`` weighs them; ``rows.h`` (float32) and
``tiles.h`` (bfloat16, where the CPU has matrix units) make scores from states and mix them.
``step.c`` runs all layers of a windowed or full model for one further position; ``products.h``,
which ``products.c`` has for quantized layers alone, multiplies with weights as they lie in memory.

Nothing here is needed: where it cannot be had the same work is done in PyTorch.
"""
