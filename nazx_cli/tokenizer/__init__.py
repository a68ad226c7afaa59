"""Text to token ids and back, on the `tokenizers` library."""

from nazx_cli.tokenizer.encode import Tokens
from nazx_cli.tokenizer.tokenizer import TextStream, Tokenizer

__all__ = ["TextStream", "Tokenizer", "Tokens"]
