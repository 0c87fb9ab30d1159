"""The fine-tuned model as a checkpoint for others: a format of choice, tokenizer, model card."""
