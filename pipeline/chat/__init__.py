"""Conversations: the schemas they come in, the templates they are written with, and the masks of what is learned."""
