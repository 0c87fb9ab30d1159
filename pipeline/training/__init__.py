"""The trainer that base and finetune share."""
