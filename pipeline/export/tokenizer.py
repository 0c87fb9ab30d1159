"""The tokenizer as transformers loads it, our chat template in Jinja, the ids that generation needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.chat.template import ChatTemplate
from pipeline.chat.tokenizer import CHAT_TEMPLATE_FILE, CONFIG_FILE, copy_tokenizer
from pipeline.chat.turns import TurnTemplate

_JINJA = """\
{%%- set openings = %(openings)s -%%}
{%%- set closings = %(closings)s -%%}
{{- bos_token -}}
{%%- for message in messages -%%}
{%%- if message["role"] not in openings -%%}
{{- raise_exception("a message has the role " ~ message["role"] ~ "; known roles are %(roles)s") -}}
{%%- endif -%%}
{{- openings[message["role"]] -}}
{%%- if message["role"] == "assistant" -%%}
{%%- generation -%%}{{- message["content"] + closings["assistant"] -}}{%%- endgeneration -%%}
{%%- else -%%}
{{- message["content"] + closings[message["role"]] -}}
{%%- endif -%%}
{%%- endfor -%%}
{%%- if add_generation_prompt -%%}{{- openings["assistant"] -}}{%%- endif -%%}
"""


def export_tokenizer(source: Path, template: ChatTemplate, target: Path) -> None:
    """Copy the tokenizer in `source` to `target`, byte for byte, and add what transformers misses there.

    A tokenizer_config.json and a chat template that came with it stay as they are; what is missing is ours.
    """
    copy_tokenizer(source, target)
    ours = {"chat_template": jinja_template(template)} if isinstance(template, TurnTemplate) else {}
    config = target / CONFIG_FILE
    if not config.exists():
        _write(config, json.dumps(_config(template) | ours, indent=2, ensure_ascii=False) + "\n")
    elif ours:
        _write(target / CHAT_TEMPLATE_FILE, ours["chat_template"])


def jinja_template(template: TurnTemplate) -> str:
    """What renders a conversation to the text whose ids `template` makes.

    Where turns are plain text, ids may differ where a merge of the tokenizer crosses the edge of a turn: Jinja makes
    one text of them all, `TurnTemplate` encodes each part apart.
    """
    return _JINJA % {
        "openings": _texts(template, template.openings),
        "closings": _texts(template, template.closings),
        "roles": ", ".join(template.openings),
    }


def generation_ids(template: ChatTemplate) -> dict[str, object]:
    """bos, eos and pad under transformers' names; an answer ends with its end token, a document with eos."""
    tokenizer = template.tokenizer
    ends = list(dict.fromkeys((template.end_id, tokenizer.eos_id)))
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_id,
    }


def _config(template: ChatTemplate) -> dict[str, Any]:
    tokenizer = template.tokenizer
    name = tokenizer.backend.id_to_token
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name(tokenizer.bos_id),
        "eos_token": name(tokenizer.eos_id),
        "pad_token": name(tokenizer.pad_id),
        "clean_up_tokenization_spaces": False,
    }


def _texts(template: TurnTemplate, parts: dict[str, list[int]]) -> str:
    """The text of each role's ids, as a literal of Jinja, which JSON's are."""
    decode = template.tokenizer.backend.decode
    texts = {role: decode(ids, skip_special_tokens=False) for role, ids in parts.items()}
    return json.dumps(texts, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
