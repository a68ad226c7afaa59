"""Terminal and pipe: the streams, tables, an answer as it is written, the gauge."""
