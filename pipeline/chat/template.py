"""How a conversation becomes ids and a loss mask: by the tokenizer's own template, or in plain turns."""

from __future__ import annotations

from pipeline.chat.jinja import JinjaTemplate
from pipeline.chat.tokenizer import Tokenizer
from pipeline.chat.turns import TurnTemplate

ChatTemplate = JinjaTemplate | TurnTemplate


def template_for(tokenizer: Tokenizer) -> ChatTemplate:
    """The template that belongs to `tokenizer`.

    Raises:
        ValueError: its own is not valid Jinja, or does not render a plain conversation.
    """
    return TurnTemplate.for_tokenizer(tokenizer) if tokenizer.chat_template is None else JinjaTemplate(tokenizer)
