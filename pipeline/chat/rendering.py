"""A conversation through a tokenizer's own Jinja template, as transformers renders it, with its parts told apart.

The rendered text mixes what the template writes with what people said. Marks keep them apart: characters of Unicode's
private use area that neither the template nor the conversation has. One breaks up the names of control tokens in what
was said, so that every whole name left is the template's; two more stand around what a `{% generation %}` block
writes. All of them are taken out again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.chat.schemas import ROLES, Message

_PRIVATE_USE = range(0xE000, 0xF900)
_WHITE_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and not "\x1c" <= char <= "\x1f")
"""Unicode's, which `tokenizers` goes by; Python counts U+001C to U+001F, too."""
_BEGIN, _FINISH = "_generation_begins", "_generation_ends"


class CutUpError(ValueError):
    """Where generation blocks begin and end is lost."""

    def __init__(self) -> None:
        super().__init__(
            "the chat template cuts up or trims what a {% generation %} block wrote, so where the answer begins and "
            "ends is lost: do that within the block"
        )


@dataclass(frozen=True)
class Control:
    """A control token, and whether it takes the white space before and after it."""

    id: int
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class Rendered:
    text: str
    """Each control token that the template wrote is the one character `separator` in it."""
    separator: str
    """Stands nowhere else in `text`."""
    controls: list[int]
    """The ids of the control tokens, in order."""
    answers: list[tuple[int, int]]
    """Where in `text` what a generation block wrote begins and ends; of none if it was not rendered `marked`."""

    def since(self, start: int) -> Rendered:
        """From character `start` on, without the answers."""
        return Rendered(
            self.text[start:], self.separator, self.controls[self.text.count(self.separator, 0, start) :], []
        )


class Renderer:
    """A compiled template."""

    def __init__(self, source: str, names: Mapping[str, str], controls: Mapping[str, Control]) -> None:
        """
        Args:
            source: Jinja, in transformers' dialect; but for today's date, with which the ids would change.
            names: what the template knows as `bos_token` and so on.
            controls: by name; any other name is plain text.

        Raises:
            ValueError: `source` is not valid Jinja, or a control token's name is a single character.
        """
        short = [name for name in controls if len(name) < 2]
        if short:
            raise ValueError(f"the control token {short[0]!r} is a single character, so any text could forge it")
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise ValueError(f"the chat template is not valid Jinja: {error}") from None
        self._source, self._names, self._controls = source, names, controls
        longest_first = sorted(controls, key=lambda name: (-len(name), name))
        self._any_name = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._heads = frozenset(name[:cut] for name in controls for cut in range(1, len(name)))
        self._tails = frozenset(name[cut:] for name in controls for cut in range(1, len(name)))

    @property
    def has_generation_block(self) -> bool:
        return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", self._source) is not None

    def render(self, messages: Sequence[Message], *, prompt: bool = False, marked: bool = False) -> Rendered:
        """Render `messages`.

        Args:
            prompt: up to where the assistant's next answer begins.
            marked: with `answers`; a template that cuts up what a generation block wrote can do without them only.

        Raises:
            CutUpError: `marked`, and the template cuts up what a generation block wrote.
            ValueError: a role that is none of `ROLES`, or the template does not take these messages.
        """
        for message in messages:
            if message["role"] not in ROLES:
                raise ValueError(f"a message has the role {message['role']!r}; known roles are {', '.join(ROLES)}")
        contents = [message["content"] for message in messages]
        try:
            guard, begin, finish, separator = unused_characters([self._source, *self._names.values(), *contents], 4)
        except ValueError as error:
            raise ValueError(f"{error}: the one beginning {beginning(messages)!r}") from None
        guarded: list[Message] = [{"role": m["role"], "content": self._guarded(m["content"], guard)} for m in messages]
        text = self._write(guarded, prompt, "", "")
        if marked:
            with_marks = self._write(guarded, prompt, begin, finish)
            if with_marks.replace(begin, "").replace(finish, "") != text:
                raise CutUpError
            text = with_marks
        return self._tell_apart(text, guard, begin, finish, separator)

    def _write(self, messages: Sequence[Message], prompt: bool, begin: str, finish: str) -> str:
        """What the template makes of them, with these marks around generation blocks."""
        variables: dict[str, Any] = {**self._names, _BEGIN: begin, _FINISH: finish}
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **variables
            )
        except Exception as error:  # a template is a program, which may fail in any way
            begun = beginning(messages)
            raise ValueError(f"the chat template does not take the conversation beginning {begun!r}: {error}") from None

    def _guarded(self, content: str, guard: str) -> str:
        """`content` with `guard` in each control token's name, and at an edge that may be a part of one.

        The edges are those of the words: templates often trim the white space around them.
        """
        starts = [found.start() + 1 for found in re.finditer(f"(?={self._any_name})", content)]
        content = guard.join(content[i:j] for i, j in zip([0, *starts], [*starts, None], strict=True))
        words = content.strip()
        first = content.find(words)
        last = first + len(words)
        longest = max(map(len, self._heads), default=0)
        if any(words[len(words) - size :] in self._heads for size in range(1, min(longest, len(words)) + 1)):
            content = content[:last] + guard + content[last:]
        if any(words[:size] in self._tails for size in range(1, min(longest, len(words)) + 1)):
            content = content[:first] + guard + content[first:]
        return content

    def _tell_apart(self, marked: str, guard: str, begin: str, finish: str, separator: str) -> Rendered:
        parts: list[str] = []
        controls: list[Control] = []
        begun: list[int] = []
        answers: list[tuple[int, int]] = []
        at = length = 0
        for found in re.finditer(f"[{guard}{begin}{finish}]|{self._any_name}", marked):
            parts.append(marked[at : found.start()])
            length += found.start() - at
            at = found.end()
            if found[0] == begin:
                begun.append(length)
            elif found[0] == finish and begun:
                answers.append((begun.pop(), length))
            elif found[0] == finish:
                raise CutUpError
            elif found[0] != guard:
                controls.append(self._controls[found[0]])
                parts.append(separator)
                length += 1
        if begun:
            raise CutUpError
        text = "".join([*parts, marked[at:]])
        return _without_stripped(Rendered(text, separator, [control.id for control in controls], answers), controls)


def beginning(messages: Sequence[Message]) -> str:
    """The words in which a conversation begins, for a message of an error."""
    return messages[0]["content"][:60] if messages else ""


def unused_characters(texts: Sequence[str], count: int) -> list[str]:
    """The first `count` characters of the private use area that stand in none of `texts`.

    Raises:
        ValueError: the texts have them all.
    """
    unused = (char for char in map(chr, _PRIVATE_USE) if not any(char in text for text in texts))
    found = list(islice(unused, count))
    if len(found) < count:
        raise ValueError("a conversation has every character of the private use area; it cannot be rendered safely")
    return found


def _without_stripped(rendered: Rendered, controls: Sequence[Control]) -> Rendered:
    """Without the white space that the control tokens take."""
    if not any(control.lstrip or control.rstrip for control in controls):
        return rendered
    parts: list[str] = []
    kept: list[bool] = []
    strip_start = [False, *(control.rstrip for control in controls)]
    strip_end = [*(control.lstrip for control in controls), False]
    for part, start, end in zip(rendered.text.split(rendered.separator), strip_start, strip_end, strict=True):
        words = part.lstrip(_WHITE_SPACE) if start else part
        first = len(part) - len(words)
        words = words.rstrip(_WHITE_SPACE) if end else words
        parts.append(words)
        kept += [False] * first + [True] * len(words) + [False] * (len(part) - first - len(words)) + [True]
    moved = list(accumulate(kept, initial=0))
    answers = [(moved[start], moved[stop]) for start, stop in rendered.answers]
    return Rendered(rendered.separator.join(parts), rendered.separator, rendered.controls, answers)


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}`: its content between two marks."""

    tags: set[str] = {"generation"}  # noqa: RUF012  (the base class has it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, finish = (nodes.Output([nodes.Name(name, "load")]) for name in (_BEGIN, _FINISH))
        return [node.set_lineno(line) for node in (begin, nodes.Scope(body), finish)]


def _environment() -> ImmutableSandboxedEnvironment:
    """The settings and functions of transformers, less `strftime_now`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; the filter that Jinja brings escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
