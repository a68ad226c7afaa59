"""Who answers: NazX itself, what people would otherwise run, and simple extracts."""
