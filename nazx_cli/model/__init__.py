"""The decoder: layers, rotary positions, attention kinds."""
