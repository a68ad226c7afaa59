"""The fuzz suite: inputs that went wrong on purpose, and the one law for what ``nazx`` does then.

A target is a module with ``cases(rng)``, which yields cases without end. To add one, add its line.
"""

TARGETS: dict[str, str] = {  # name -> module
    "documents": "fuzz.documents",
    "folders": "fuzz.folders",
    "urls": "fuzz.urls",
    "sessions": "fuzz.sessions",
    "config": "fuzz.config",
    "safetensors": "fuzz.safetensors",
    "gguf": "fuzz.gguf",
    "tokenizer": "fuzz.tokenizer",
    "templates": "fuzz.templates",
    "hub": "fuzz.hub",
    "options": "fuzz.options",
    "slash": "fuzz.slash",
}
