"""What NazX is measured beside: transformers and llama.cpp on the same weights."""
