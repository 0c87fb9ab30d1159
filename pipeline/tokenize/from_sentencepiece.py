"""A SentencePiece model, BPE or unigram -> the same model in Hugging Face's `tokenizers`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pipeline.tokenize.converted import Converted

SPACE = "▁"

proto: Any = sentencepiece_model_pb2  # made by protobuf when it is imported, so nothing is known of its types
_KIND = proto.ModelProto.SentencePiece
_CONTROL = (_KIND.CONTROL, _KIND.UNKNOWN)


def read(file: Path) -> Converted:
    """Convert the model in `file`.

    A unigram model of `tokenizers` would find the names of control pieces in text, so text is cut inside them there;
    around such a name the ids may be others than SentencePiece's.

    Raises:
        ValueError: no SentencePiece model, or one of a kind that cannot be converted.
    """
    model = proto.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
        library = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except Exception as error:  # of protobuf, which raises its own, and of the library
        raise ValueError(f"{file}: not a SentencePiece model: {error}") from None
    _check(model, file)
    is_bpe = model.trainer_spec.model_type == proto.TrainerSpec.BPE
    backend = Tokenizer(_bpe(model) if is_bpe else _unigram(model))
    own = [piece.piece for piece in model.pieces if piece.type == _KIND.USER_DEFINED]
    backend.normalizer = normalizers.Sequence(_normalizers(model.normalizer_spec, whole=not own))
    backend.decoder = _decoder(model)
    before: list[Any] = []
    if own and model.normalizer_spec.add_dummy_prefix:
        before.append(pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    names = None if is_bpe else _names_in_text(model)
    if names:
        before.append(pre_tokenizers.Split(Regex(_inside(names)), behavior="isolated"))
    if before:
        backend.pre_tokenizer = pre_tokenizers.Sequence(before)
    backend.add_special_tokens(
        [AddedToken(piece.piece, normalized=False) for piece in model.pieces if piece.type in _CONTROL]
    )
    backend.add_tokens([AddedToken(piece.replace(SPACE, " "), normalized=False, special=False) for piece in own])
    ends = {"bos_token": library.bos_id(), "eos_token": library.eos_id(), "unk_token": library.unk_id()}
    return Converted(
        backend,
        {name: library.id_to_piece(token) for name, token in ends.items() if token >= 0},
        library.encode,
        (lambda text: False) if names is None else (lambda text: any(name in text for name in names)),
    )


def _check(model: Any, file: Path) -> None:
    if not model.pieces:
        raise ValueError(f"{file}: not a SentencePiece model: it has no pieces")
    if model.trainer_spec.model_type not in (proto.TrainerSpec.BPE, proto.TrainerSpec.UNIGRAM):
        raise ValueError(f"{file}: only BPE and unigram models can be converted to tokenizer.json")
    if model.trainer_spec.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        raise ValueError(f"{file}: a model that does not put {SPACE} before a word cannot be converted")
    if any(piece.type == _KIND.UNUSED for piece in model.pieces):
        raise ValueError(f"{file}: a model with unused pieces cannot be converted")


def _bpe(model: Any) -> models.BPE:
    """Every pair of pieces that makes a piece is a merge, the best score first."""
    vocab = {piece.piece: number for number, piece in enumerate(model.pieces)}
    makes = {piece.piece: piece.score for piece in model.pieces if piece.type == _KIND.NORMAL}
    merges = [
        (-score, vocab[piece], cut, piece)
        for piece, score in makes.items()
        for cut in range(1, len(piece))
        if piece[:cut] in makes and piece[cut:] in makes
    ]
    pairs = [(piece[:cut], piece[cut:]) for *_, cut, piece in sorted(merges)]
    fallback = model.trainer_spec.byte_fallback
    return models.BPE(vocab, pairs, unk_token=model.trainer_spec.unk_piece, fuse_unk=True, byte_fallback=fallback)


def _unigram(model: Any) -> models.Unigram:
    scores = [(piece.piece, piece.score) for piece in model.pieces]
    return models.Unigram(scores, model.trainer_spec.unk_id, model.trainer_spec.byte_fallback)


def _normalizers(spec: Any, *, whole: bool) -> list[Any]:
    """SentencePiece's own steps, in its order: the character map, extra white space, the space before, its sign."""
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix and whole:
        steps.append(normalizers.Prepend(SPACE))
    return [*steps, normalizers.Replace(" ", SPACE)]


def _decoder(model: Any) -> decoders.Sequence:
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _names_in_text(model: Any) -> list[str]:
    kinds = (*_CONTROL, _KIND.BYTE)
    return [piece.piece for piece in model.pieces if piece.type in kinds]


def _inside(names: list[str]) -> str:
    """The place after the first character of each name."""
    return "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
