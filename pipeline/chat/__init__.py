"""Conversations: the schemas they come in, the template that writes them, the mask of what is learned."""
