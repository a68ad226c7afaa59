"""Teaching a far memory beside a model whose weights stay as they are."""
