"""The resident context: token ids, and the memory layouts over them, each over a kernel."""
