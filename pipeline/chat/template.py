"""How a conversation becomes ids and a loss mask: by the tokenizer's own template, or in plain turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pipeline.chat.tokenizer import Tokenizer
from pipeline.chat.turns import TurnTemplate

if TYPE_CHECKING:
    from pipeline.chat.jinja import JinjaTemplate

ChatTemplate: TypeAlias = "JinjaTemplate | TurnTemplate"


def template_for(tokenizer: Tokenizer) -> ChatTemplate:
    """The template that belongs to `tokenizer`.

    Raises:
        ValueError: its own is not valid Jinja, or does not render a plain conversation.
    """
    if tokenizer.chat_template is None:
        return TurnTemplate.for_tokenizer(tokenizer)
    from pipeline.chat.jinja import JinjaTemplate  # every process that encodes would wait for Jinja

    return JinjaTemplate(tokenizer)
