"""nazx tune: teaching a model to answer, from questions whose answers are known."""
