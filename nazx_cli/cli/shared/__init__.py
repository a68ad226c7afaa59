"""What commands share: options, what the parser tells, and the opening of a chat."""
