"""The Next Token Game: a person against models that see less or more of a text."""
