"""Text to token ids and back, on the `tokenizers` library."""

from nazx_cli.tokenizer.stream import TextStream
from nazx_cli.tokenizer.tokenizer import Tokenizer
from nazx_cli.tokenizer.tokens import Progress, Tokens

__all__ = ["Progress", "TextStream", "Tokenizer", "Tokens"]
