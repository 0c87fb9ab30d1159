"""The base model: a checkpoint that the user brings, or one pre-trained from scratch on the documents."""
