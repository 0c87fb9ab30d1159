"""Chat templates, tokenizers and conversations at random, and what each template writes, character by character.

A `Form` is turned into Jinja (`Form.jinja`) and, by plain string building that knows no Jinja, into the text and the
characters of it that are to be learned (`Form.written`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tokenizers
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.chat.schemas import Message
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer

NAMES = (
    ("<s>", "</s>", "<|im_start|>", "<|im_end|>"),
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"),
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    ("[BOS]", "[EOS]", "[INST]", "[/INST]"),
)
"""Control tokens as they are called: of the beginning, of the end, and two more, the last of which may end a turn."""

FLAWS = (
    "unmarked",
    "all",
    "questions too",
    "question again",
    "last only",
    "cut",
    "no end",
    "words before the end",
    "by place",
)
"""What may be wrong with the generation blocks of a template."""


@dataclass(frozen=True)
class Form:
    """What a template writes."""

    names: tuple[str, str, str, str]
    bos: str
    """`variable`, `literal`, or nothing."""
    openings: dict[str, tuple[str, ...]]
    """By role, in parts: the names of control tokens and other text."""
    closings: dict[str, tuple[str, ...]]
    """By role; the assistant's begins with a control token."""
    gap: str
    """After every turn."""
    thought: str
    """In the block before each answer."""
    marked_end: int
    """How many parts of the assistant's closing are in the block."""
    trims: bool
    system: str
    """`in place`, or `merged` into the first turn if that is the user's."""
    default_system: str
    """Said where there is no system message; nothing if empty."""
    loop: str
    """`messages`, `places` or `macro`."""
    laid_out: bool
    """Over many lines, indented, with whitespace control."""
    flaw: str = ""

    def jinja(self) -> str:
        """The source."""
        loops = {
            "messages": "{%- for m in messages -%}",
            "places": "{%- for i in range(messages | length) -%}{%- set m = messages[i] -%}",
            "macro": "{%- macro said(words) -%}{{- words -}}{%- endmacro -%}{%- for m in messages -%}",
        }
        parts = [
            {"variable": "{{- bos_token -}}", "literal": _literal(self.names[0]), "": ""}[self.bos],
            *self._jinja_system(),
            loops[self.loop],
            *(self._jinja_turn(role) for role in ("system", "user", "assistant")),
            "{%- endif -%}",
            _literal(self.gap),
            "{%- endfor -%}",
            "{%- if add_generation_prompt -%}",
            *map(_literal, self.openings["assistant"]),
            "{%- endif -%}",
        ]
        if self.flaw == "all":
            parts = ["{%- generation -%}", *parts, "{%- endgeneration -%}"]
        return "\n  ".join(parts) if self.laid_out else "".join(parts)

    def _jinja_system(self) -> list[str]:
        if self.system == "merged":
            return [
                f"{{%- set told = {self.default_system!r} -%}}",
                "{%- if messages[0].role == 'system' -%}",
                f"{{%- set told = messages[0].content{' | trim' * self.trims} -%}}",
                "{%- set messages = messages[1:] -%}{%- endif -%}",
            ]
        if not self.default_system:
            return []
        turn = (*self.openings["system"], self.default_system, *self.closings["system"], self.gap)
        return ["{%- if messages[0].role != 'system' -%}", *map(_literal, turn), "{%- endif -%}"]

    def _jinja_turn(self, role: str) -> str:
        words = "m['content'] | trim" if self.trims else "m.content"
        content = f"{{{{- said({words}) -}}}}" if self.loop == "macro" else f"{{{{- {words} -}}}}"
        opening, closing = "".join(map(_literal, self.openings[role])), list(map(_literal, self.closings[role]))
        test = {"system": "if m.role == 'system'", "user": "elif m['role'] == 'user'", "assistant": "else"}[role]
        if role == "user" and self.system == "merged":
            told = f"{{{{- told -}}}}{_literal('~')}"
            opening += (
                f"{{%- if told and {'i == 0' if self.loop == 'places' else 'loop.first'} -%}}{told}{{%- endif -%}}"
            )
        begin, end = "{%- generation -%}", "{%- endgeneration -%}"
        if role == "assistant":
            content = _literal(self.thought) + content
            inside = "".join([content, *closing[: self.marked_end]])
            outside = "".join(closing[self.marked_end :])
            match self.flaw:
                case "unmarked" | "all":
                    begin = end = ""
                case "question again":
                    earlier = "i - 1" if self.loop == "places" else "loop.index0 - 1"
                    inside = f"{{{{- messages[{earlier}].content -}}}}{inside}"
                case "last only":
                    last = "i == messages | length - 1" if self.loop == "places" else "loop.last"
                    both = inside + outside
                    return (
                        f"{{%- {test} -%}}{opening}{{%- if {last} -%}}{begin}{inside}{end}{outside}"
                        f"{{%- else -%}}{both}{{%- endif -%}}"
                    )
                case "cut":
                    begin, end = "{%- set answer -%}" + begin, end + "{%- endset -%}{{- answer[1:] -}}"
                case "no end":
                    inside, outside = content, ""
                case "words before the end":
                    inside, outside = content, "(over)" + "".join(closing)
            content, closing = begin + inside + end + outside, []
        elif role == "user" and self.flaw == "questions too":
            content = begin + content + end
        if self.flaw == "by place":  # the second of two messages is marked, whoever says it
            test = test.replace("m.role == 'system'", "false").replace("m['role'] == 'user'", self._is_even())
        return f"{{%- {test} -%}}{opening}{content}{''.join(closing)}"

    def _is_even(self) -> str:
        return "i % 2 == 0" if self.loop == "places" else "loop.index0 % 2 == 0"

    def written(self, messages: list[Message]) -> tuple[str, list[bool]]:
        """The text that a form without a flaw writes, and which of its characters are learned."""
        text: list[str] = []
        learned: list[bool] = []

        def write(part: str, learn: bool = False) -> None:
            text.append(part)
            learned.extend([learn] * len(part))

        write(self.names[0] if self.bos else "")
        told = ""
        has_system = messages[0]["role"] == "system"
        if self.system == "merged":
            told = self._said(messages[0]) if has_system else self.default_system
            messages = messages[has_system:]
        elif self.default_system and not has_system:
            write("".join([*self.openings["system"], self.default_system, *self.closings["system"], self.gap]))
        for place, message in enumerate(messages):
            role = message["role"]
            is_answer = role == "assistant"
            write("".join(self.openings[role]))
            if role == "user" and place == 0 and told:
                write(told + "~")
            write((self.thought if is_answer else "") + self._said(message), is_answer)
            for number, part in enumerate(self.closings[role]):
                write(part, is_answer and (number == 0 or number < self.marked_end))
            write(self.gap)
        return "".join(text), learned

    def _said(self, message: Message) -> str:
        return message["content"].strip() if self.trims else message["content"]


def _literal(part: str) -> str:
    """Jinja that writes `part`: as it stands, where whitespace control leaves it alone."""
    if part and part == part.strip():
        return f"{{#- -#}}{part}{{#- -#}}"
    return f"{{{{- {part!r} -}}}}" if part else ""


@st.composite
def forms(draw: st.DrawFn, flawed: bool = False) -> Form:
    """A form; any but a flawed one marks its answers as it should."""
    names = draw(st.sampled_from(NAMES))
    text = st.sampled_from(
        ["\n", "\n\n", " ", "User:", "### ", "a\u00e9\u4e2d", ":\n", " \U0001f642", "assistant\n", "[x] "]
    )
    part = st.one_of(st.sampled_from(names[1:]), text)
    turn = st.lists(part, max_size=3).map(tuple)
    end = draw(st.sampled_from((names[1], names[3])))
    openings = {role: draw(turn) for role in ("system", "user", "assistant")}
    closings = {role: draw(turn) for role in ("system", "user")}
    closings["assistant"] = (end, *draw(st.lists(st.sampled_from(["\n", " "]), max_size=1)))
    return Form(
        names,
        draw(st.sampled_from(["variable", "literal", ""])),
        openings,
        closings,
        gap=draw(st.sampled_from(["", "\n", " "])),
        thought=draw(st.sampled_from(["", "", "<think></think>\n"])),
        marked_end=draw(st.integers(0, len(closings["assistant"]))),
        trims=draw(st.booleans()),
        system=draw(st.sampled_from(["in place", "merged"])),
        default_system=draw(st.sampled_from(["", "", "Be brief."])),
        loop=draw(st.sampled_from(["messages", "places", "macro"])),
        laid_out=draw(st.booleans()),
        flaw=draw(st.sampled_from(FLAWS)) if flawed else "",
    )


WORDS = (
    "the ",
    " cat",
    "\n",
    "\r\n",
    "  ",
    "\t",
    "\x1f",
    "\u2028",
    "42",
    "<",
    "|>",
    "[",
    "assistant",
    "User:",
    "{{ m }}",
    "{% x %}",
    "'",
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
"""Of every plane: letters, marks, digits, controls, private use, not assigned; but no half of a surrogate pair."""
SAID = st.lists(st.one_of(st.sampled_from(WORDS), st.text(CHARACTERS, max_size=6)), max_size=6).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Turns of any role, the system's only first, with an answer last."""
    roles = [*["system"] * draw(st.booleans())]
    roles += draw(st.one_of(st.just(["user"]), st.lists(st.sampled_from(["user", "assistant"]), max_size=5)))
    return [{"role": role, "content": draw(SAID)} for role in [*roles, "assistant"]]


@dataclass(frozen=True)
class Recipe:
    """Of a tokenizer."""

    kind: str
    """`byte-level`, `byte fallback`, `metaspace`, `prefixed` or `wordpiece`."""
    vocab_size: int
    text: int
    """Which of `TRAINING` it is trained on."""
    option: bool
    """byte-level: a space before the first word; metaspace: before that only; prefixed: one <unk> for several
    characters in a row; wordpiece: lower case, without accents."""
    form: str
    """Unicode's normal form, or none."""
    lstrip: bool
    rstrip: bool


TRAINING = (
    ("the cat sat on the mat", "user assistant system User: ### 42"),
    (
        "na\u00efve caf\u00e9 \u4e2d\u6587 \u0440\u0443\u0441 \U0001f642",
        "a\u00e9\u4e2d {{ m }} the cat",
        "\u0915\u094d\u0937",
    ),
)

RECIPES = st.builds(
    Recipe,
    kind=st.sampled_from(["byte-level", "byte fallback", "metaspace", "prefixed", "wordpiece"]),
    vocab_size=st.sampled_from([270, 300, 400]),
    text=st.integers(0, len(TRAINING) - 1),
    option=st.booleans(),
    form=st.sampled_from(["", "NFC", "NFKC"]),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
)


@cache
def trained(recipe: Recipe, names: tuple[str, ...]) -> str:
    """tokenizer.json of a tokenizer with these control tokens."""
    backend, trainer = _untrained(recipe)
    form = [getattr(normalizers, recipe.form)()] if recipe.form else []
    given = [backend.normalizer] if backend.normalizer else []
    if form or given:
        backend.normalizer = normalizers.Sequence([*form, *given])
    backend.train_from_iterator(TRAINING[recipe.text] * 4, trainer)
    if recipe.kind == "byte fallback":  # bytes are no control tokens, though the trainer is told so
        backend = tokenizers.Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | {"added_tokens": []}))
    backend.add_special_tokens(
        [AddedToken(name, normalized=False, lstrip=recipe.lstrip, rstrip=recipe.rstrip) for name in names]
    )
    return backend.to_str()


def _untrained(recipe: Recipe) -> tuple[tokenizers.Tokenizer, object]:
    size = recipe.vocab_size
    match recipe.kind:
        case "byte-level":
            backend = tokenizers.Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=recipe.option)
            backend.post_processor = processors.ByteLevel(trim_offsets=True)
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
            return backend, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        case "byte fallback":
            backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
            backend.normalizer = normalizers.Replace(" ", "\u2581")
            tokens = [f"<0x{byte:02X}>" for byte in range(256)]
            return backend, trainers.BpeTrainer(vocab_size=size + 50, special_tokens=tokens, show_progress=False)
        case "metaspace":
            backend = tokenizers.Tokenizer(models.Unigram())
            scheme = "first" if recipe.option else "always"
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
            return backend, trainers.UnigramTrainer(
                vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
            )
        case "prefixed":
            backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=recipe.option))
            backend.normalizer = normalizers.Sequence(
                [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
            )
            return backend, trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False)
        case _:
            backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
            backend.normalizer = normalizers.BertNormalizer(lowercase=recipe.option)
            backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            return backend, trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False)


def saved(folder: Path, recipe: Recipe, names: tuple[str, ...], template: str | None) -> Tokenizer:
    """The tokenizer as the pipeline loads it from `folder`."""
    (folder / "tokenizer.json").write_text(trained(recipe, names))
    config = {"bos_token": names[0], "eos_token": names[1]}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)
