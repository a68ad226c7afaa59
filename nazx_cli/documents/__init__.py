"""Documents: finding them, reading them as text, making their text safe to show."""
