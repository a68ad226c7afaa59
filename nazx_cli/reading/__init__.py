"""Reading: getting what a question needs out of documents that the model cannot attend to."""
