"""A conversation with a model about documents: templates, prompts, turns."""
