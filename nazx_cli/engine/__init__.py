"""The running model: sampling, generation, and the Python interface."""
