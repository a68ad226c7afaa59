"""Commands that train: new models, and what models that are there are taught."""
