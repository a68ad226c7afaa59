"""Quantized linear layers: int8 and nf4, what they cost, and bitsandbytes, which makes them."""
