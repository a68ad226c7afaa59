"""Attention kinds, one class each. A new kind is one file and one line in ``kinds``."""
