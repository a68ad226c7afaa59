"""Finding, fetching, checking, converting and writing model weights."""
