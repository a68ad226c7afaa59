"""Summaries in the documents' own sentences."""
