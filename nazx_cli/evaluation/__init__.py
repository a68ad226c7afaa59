"""The judge: asks questions with known answers and measures what comes back."""
