"""The decoder: layers, attention kinds."""
