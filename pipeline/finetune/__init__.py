"""Full fine-tuning of the base model on response tokens."""
