"""``nazx eval``: its options, what is run side by side, and the table of figures."""
