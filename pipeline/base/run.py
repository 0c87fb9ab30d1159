"""Take a checkpoint or pre-train from scratch."""

from __future__ import annotations

from pathlib import Path

import torch

from model import HybridLM, load_pretrained
from model.vocabulary import extend_vocabulary
from pipeline.chat.tokenizer import load_tokenizer
from pipeline.params import EMBEDDED, Params
from pipeline.tracking import Run
from pipeline.training.history import History
from pipeline.training.session import run_training, training_rows, write_model
from pipeline.work import WorkFolder


def make_base(tokens: Path, params: Params, run: Run, work: WorkFolder) -> None:
    """Write the base model to `work.out`.

    Raises:
        ValueError: the checkpoint's vocabulary is smaller than the tokenizer's, or a split is empty.
    """
    tokenizer = tokens / "tokenizer"
    vocab_size = load_tokenizer(tokenizer).vocab_size
    checkpoint = params.model.checkpoint
    if checkpoint != EMBEDDED:
        model = load_pretrained(Path(checkpoint), dtype=torch.float32)
        if model.config.vocab_size < vocab_size and params.model.extend_vocabulary:
            model = extend_vocabulary(model, vocab_size)
        if model.config.vocab_size < vocab_size:
            raise ValueError(
                f"{checkpoint}: its vocabulary has {model.config.vocab_size} entries, the tokenizer {vocab_size}; "
                "set tokenize.tokenizer to the tokenizer that the checkpoint was trained with, or "
                "model.extend_vocabulary to true if tokens were added to it"
            )
        write_model(work.out, model, tokenizer, History(), run)
        return
    config = params.model.hybrid_config(vocab_size)
    rows = training_rows(tokens, prefer="documents")
    run_training(lambda: HybridLM(config), rows, tokenizer, params.base, params.launch, run, work)
