"""What computes losses and gradients of a pack."""
