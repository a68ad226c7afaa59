"""The resident context: token ids, posting lists, and one file per memory layout."""
