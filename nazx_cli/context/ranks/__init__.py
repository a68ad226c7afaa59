"""A context that several processes hold together."""
