"""Tuning a model: data in the session's own prompt form, LoRA, the trainer."""
