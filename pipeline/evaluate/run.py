"""Measure both models and the baselines, and publish the figures."""

from __future__ import annotations

import math
from pathlib import Path

import sacrebleu
import torch

from model import HybridLM, load_pretrained
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.evaluate.measured import Measured
from pipeline.evaluate.ngram import KneserNeyBigram, Unigram
from pipeline.evaluate.publish import publish, table
from pipeline.evaluate.responses import respond, sample_prompts
from pipeline.evaluate.speed import decode_tokens_per_second
from pipeline.params import EvaluateParams, LaunchParams, Precision
from pipeline.progress import Progress
from pipeline.rows import Rows, open_rows
from pipeline.shards import read_manifest
from pipeline.tracking import Run
from pipeline.training.device import make_deterministic, pick_device
from pipeline.training.loader import in_order
from pipeline.training.loss import SetLoss, set_loss

MODELS = {"base": Path("artifacts/base/model"), "finetuned": Path("artifacts/finetune/model")}


def evaluate(clean: Path, tokens: Path, out: Path, params: EvaluateParams, launch: LaunchParams, run: Run) -> None:
    """Write `out`: metrics.json, samples.jsonl, plots, speed.json, report.html.

    Raises:
        ValueError: there is no test split.
    """
    device = pick_device(launch.device)
    make_deterministic(seed=0)
    tokenizer = load_tokenizer(tokens / "tokenizer")
    tests = {
        kind: open_rows(tokens / kind / "test")
        for kind in ("documents", "conversations")
        if (tokens / kind / "test").exists()
    }
    if not tests:
        raise ValueError(
            f"{tokens}: there is no test split; raise preprocess.test_fraction, or bring a test file of your own"
        )
    metrics: dict[str, dict[str, float]] = {name: {} for name in MODELS}
    speed: dict[str, dict[str, float]] = {}
    prompts = sample_prompts(clean / "test", tokenizer, params.samples, longest=next(iter(tests.values())).seqlen)
    samples: list[dict[str, str]] = [{"id": p.id, "prompt": p.text, "reference": p.reference} for p in prompts]

    for name, path in MODELS.items():
        model = load_pretrained(path).to(device).eval()
        figures = metrics[name]
        if "documents" in tests:
            figures |= _document_figures(_loss(name, model, tests, "documents", params, device), _test_bytes(tokens))
        if "conversations" in tests:
            response = _loss(name, model, tests, "conversations", params, device)
            figures |= {"response_loss": response.mean, "response_perplexity": response.perplexity}
        if prompts:
            with Progress(f"{name}: responses", len(prompts), unit="response") as progress:
                responses = respond(model, tokenizer, progress.over(prompts), params.max_new_tokens, device)
            figures["chrf"] = sacrebleu.corpus_chrf(responses, [[p.reference for p in prompts]]).score
            for sample, response_text in zip(samples, responses, strict=True):
                sample[name] = response_text
        speed[name] = {"decode_tokens_per_second": decode_tokens_per_second(model, device)}
    if "documents" in tests:
        metrics |= _baselines(
            open_rows(tokens / "documents" / "train"),
            tests["documents"],
            tokenizer,
            _test_bytes(tokens),
            params,
        )
    publish(out, Measured(metrics, speed, samples), clean, tokens, device, run)
    print(table(metrics), flush=True)


def _loss(
    name: str, model: HybridLM, tests: dict[str, Rows], kind: str, params: EvaluateParams, device: torch.device
) -> SetLoss:
    rows = tests[kind]
    with Progress(f"{name}: loss on {kind}", len(rows), unit="row") as progress:
        batches = progress.over(in_order(len(rows), params.batch_size), size=len)
        return set_loss(model, rows, batches, device, Precision.fp32)


def _document_figures(loss: SetLoss, text_bytes: int) -> dict[str, float]:
    return {"document_loss": loss.mean, "bits_per_byte": loss.nats / math.log(2) / text_bytes}


def _test_bytes(tokens: Path) -> int:
    return int(read_manifest(tokens)["documents"]["test"]["bytes"])


def _baselines(
    train: Rows, test: Rows, tokenizer: Tokenizer, text_bytes: int, params: EvaluateParams
) -> dict[str, dict[str, float]]:
    bigram = KneserNeyBigram(train, tokenizer.vocab_size, params.kneser_ney_discount)
    nats = {"unigram": Unigram(train, tokenizer.vocab_size).nats(test), "bigram": bigram.nats(test)}
    return {name: {"bits_per_byte": value / math.log(2) / text_bytes} for name, value in nats.items()}
