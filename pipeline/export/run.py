"""Write the exported checkpoint: weights and configuration, tokenizer, ids for generation, model card."""

from __future__ import annotations

import json
from pathlib import Path

from model import load_pretrained, save_pretrained
from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import load_tokenizer
from pipeline.export.card import read_facts, render
from pipeline.export.formats import is_huggingface
from pipeline.export.tokenizer import export_tokenizer, generation_ids
from pipeline.params import Params
from pipeline.tracking import Run
from pipeline.work import publish_directory

CARD = "README.md"


def export(source: Path, out: Path, params: Params, run: Run) -> None:
    """Write the model in `source` to `out` (layout: docs/artifacts.md), the weights as they are stored.

    Raises:
        ValueError: the format cannot express the model.
    """
    model = load_pretrained(source)
    template = template_for(load_tokenizer(source))
    ids = generation_ids(template)
    with publish_directory(out) as building:
        try:
            save_pretrained(model, building, format=params.export.format)
        except ValueError as error:
            raise ValueError(
                f"export.format is {params.export.format}: {error}; native takes every model, and a change of "
                "export.format runs this stage alone"
            ) from None
        export_tokenizer(source, template, building)
        _write_json(building / "generation_config.json", ids)
        if is_huggingface(params.export.format):
            config = building / "config.json"
            _write_json(config, json.loads(config.read_text(encoding="utf-8")) | ids)
        card = render(read_facts(source, model.config, template, params))
        (building / CARD).write_text(card, encoding="utf-8")
    run.log_metrics({"parameters": model.config.num_parameters()})
    run.log_artifact(out / CARD)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
