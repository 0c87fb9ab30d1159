"""python -m model.inspect PATH|PRESET: what a model is made of and how much memory it takes."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from model.checkpoints import load_config
from model.config import LARGEST, PRESETS, HybridConfig
from model.memory import activations, decoding_bytes, on_meta, parameters_by_part, parameters_per_rank

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def describe(config: HybridConfig, batch: int, context: int, tensor_parallel: int, data_parallel: int) -> str:
    """The whole text.

    Raises:
        ValueError: the layout does not fit the model.
    """
    sections = [
        [f"pattern      {config.pattern}"],
        _sizes(config),
        _parameters(config),
        _training(config, batch, context, tensor_parallel, data_parallel),
        _decoding(config, batch, context),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections)


def _sizes(config: HybridConfig) -> list[str]:
    shown = {
        name: value
        for name, value in config.to_dict().items()
        if name not in ("pattern", "dt_min", "dt_max", "dt_init_floor", "initializer_range") and value is not None
    }
    hidden: dict[str, tuple[str, ...]] = {
        "M": ("d_state", "headdim", "expand", "n_groups", "d_conv", "conv_bias", "mamba_bias", "chunk_size")
    }
    hidden |= {
        "*": ("n_heads", "n_kv_heads", "head_dim", "attention_bias"),
        "-": ("d_ff", "mlp_activation", "mlp_bias"),
    }
    for symbol, names in hidden.items():
        if symbol not in config.layers:
            shown = {name: value for name, value in shown.items() if name not in names}
    width = max(map(len, shown))
    return ["sizes", *(f"  {name:<{width}}  {value}" for name, value in shown.items())]


def _parameters(config: HybridConfig) -> list[str]:
    total = config.num_parameters()
    rows = [
        (f"  {part}", f"{count:,}", f"{count / total:.1%}")
        for part, count in parameters_by_part(on_meta(config)).items()
    ]
    return _table([("parameters", f"{total:,}", ""), *rows])


def _training(config: HybridConfig, batch: int, context: int, tensor_parallel: int, data_parallel: int) -> list[str]:
    """AdamW keeps two fp32 numbers per parameter; weights and gradients are fp32 in either precision."""
    count = parameters_per_rank(on_meta(config), tensor_parallel)
    rows: list[tuple[str, ...]] = [
        ("", "weights", "gradients", "AdamW", "activations", "in all", "recomputed", "in all")
    ]
    for name, dtype in PRECISIONS.items():
        kept = activations(config, batch, context, dtype)
        fixed = (4 * count, 4 * count, 8 * count // data_parallel)
        none, full = kept.recompute_none // tensor_parallel, kept.recompute_full // tensor_parallel
        sums = (*fixed, none, sum(fixed) + none, full, sum(fixed) + full)
        rows.append((f"  {name}", *map(gib, sums)))
    layout = f" on each of {tensor_parallel} tensor-parallel x {data_parallel} data-parallel ranks"
    alone = tensor_parallel == data_parallel == 1
    return [f"training on {batch} x {context:,} tokens, GiB{'' if alone else layout}", *_table(rows)]


def _decoding(config: HybridConfig, batch: int, context: int) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "weights", "state", "keys, values")]
    for name, dtype in PRECISIONS.items():
        weights = sum(p.numel() * p.element_size() for p in on_meta(config, dtype).parameters())
        rows.append((f"  {name}", *map(gib, (weights, *decoding_bytes(config, batch, context, dtype)))))
    return [f"decoding {batch} x {context:,} tokens, GiB; the state does not grow with the tokens", *_table(rows)]


def gib(size: int) -> str:
    """Bytes in GiB, small ones with more digits."""
    return f"{size / 2**30:.2f}" if size >= 2**30 else f"{size / 2**30:.4f}"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m model.inspect",
        description="What a model is made of, and how much memory it takes to train and to decode with; nothing is "
        "allocated. Activations are what autograd keeps, with nothing recomputed and with each layer recomputed.",
    )
    parser.add_argument("model", help=f"a checkpoint directory, or one of {', '.join(PRESETS)}")
    parser.add_argument("--batch", type=int, default=1, help="rows (default 1)")
    parser.add_argument("--context", type=int, default=4096, help="tokens per row (default 4096)")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="ranks that share each layer (default 1)")
    parser.add_argument("--data-parallel", type=int, default=1, help="ranks that share the optimizer (default 1)")
    arguments = parser.parse_args()
    for name in ("batch", "context", "tensor_parallel", "data_parallel"):
        if not 1 <= getattr(arguments, name) <= LARGEST:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, and at most {LARGEST:,}")
    if arguments.batch * arguments.context > LARGEST:
        parser.error(f"--batch times --context must be at most {LARGEST:,}")
    known = arguments.model in PRESETS and not Path(arguments.model).exists()
    if not known and not Path(arguments.model).exists():
        parser.error(f"{arguments.model} is neither a directory nor one of {', '.join(PRESETS)}")
    try:
        config = HybridConfig.preset(arguments.model) if known else load_config(arguments.model)
        text = describe(config, arguments.batch, arguments.context, arguments.tensor_parallel, arguments.data_parallel)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(text)


if __name__ == "__main__":
    main()
