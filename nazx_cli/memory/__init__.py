"""What a model and a context cost (no torch), what is in use now, and keeping to a limit."""
