"""The base and the fine-tuned model side by side on the held-out test split."""
