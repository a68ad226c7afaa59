"""Chat templates, and the process in which one that is not known runs, within limits."""
