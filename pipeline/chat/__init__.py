"""Conversations: the schemas they come in, the template they are written with, the mask of what is learned."""
