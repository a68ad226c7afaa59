"""What a person sees in a terminal: answers as they stream, notes, the interactive chat."""
