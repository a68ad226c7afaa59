"""Checkpoint folders and GGUF files: reading, writing, converting and loading weights."""
