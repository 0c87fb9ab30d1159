"""Clean text -> a tokenizer, and rows of tokens of one fixed length."""
