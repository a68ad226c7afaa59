"""nazx train: models from random weights, in all attention kinds, on one corpus."""
