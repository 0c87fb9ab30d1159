"""Decoding as one CUDA graph: a step of the whole model in Triton (triton/), recorded once and replayed.

A graph reads and writes where it did when it was recorded, so states live in buffers of the decoder's own. What the
caller's list holds are these buffers (as tensors of their own that share the memory) until another text comes in
between; then they get memory of their own, with what they held.

On a CPU nothing is recorded: Triton interprets the same kernels, for tests.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from model.decode import triton
from model.hybrid import HybridLM
from model.ops._common import full_precision
from model.state import AttentionState, LayerState, MambaState

FIRST_CAPACITY = 256
"""Positions of keys and values that there is room for at least."""

_LOCK = threading.Lock()
"""For the buffers that all texts of a decoder share, and since a process can record one graph at a time."""


class Graphed:
    """A model that goes on from a state one token at a time."""

    def __init__(self, model: HybridLM) -> None:
        self._lm = model
        with _plainly(model):
            self._model = triton.Model(model)
        self._room: _Room | None = None

    def step(self, tokens: Tensor, states: list[LayerState]) -> Tensor:
        """As `Decoder.step`."""
        with _LOCK, _plainly(self._lm):
            rows, attention = len(tokens), [state for state in states if isinstance(state, AttentionState)]
            length = attention[0].length if attention else 0
            if any(state.length != length for state in attention):
                raise ValueError("the layers' states hold different numbers of positions: give states of one text")
            room = self._room
            if room is None or room.rows != rows or length >= room.capacity:
                room = _Room(self._lm, self._model, rows, _capacity(length))
            room.take(states)
            self._room = room  # what it replaces stays with those who hold its tensors
            return room.step(tokens, states)


class _Room:
    """The buffers of so many rows, and the graph that is recorded over them."""

    def __init__(self, lm: HybridLM, model: triton.Model, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self._model = model
        self._buffers = [_buffers(state, capacity) for state in lm.new_state(rows).layers]
        self._lent: list[list[Callable[[], Tensor | None]]] = [[_nobody] * len(some) for some in self._buffers]
        device = lm.embedding.weight.device
        self._tokens, self._starts = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._length = 0
        self._padding: list[Tensor | None] = [None] * lm.config.layers.count("*")
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = (
            torch.cuda.Stream(device) if device.type == "cuda" else None
        )  # of this device: torch's own is not
        self._warm, self._logits = False, self._position

    def take(self, states: list[LayerState]) -> None:
        """Make the caller's states these buffers, where they are not."""
        self._check(states)
        self._point([state for state in states if isinstance(state, AttentionState)])
        places = zip(states, self._lent, strict=True)
        if all(tensor is lent() for state, some in places for tensor, lent in zip(_tensors(state), some, strict=True)):
            return
        self._give_back()
        for state, buffers in zip(states, self._buffers, strict=True):
            for buffer, tensor in zip(buffers, _tensors(state), strict=True):
                length = state.length if isinstance(state, AttentionState) else buffer.shape[-2]
                buffer[..., :length, :].copy_(tensor[..., :length, :])
        for i, (state, buffers) in enumerate(zip(states, self._buffers, strict=True)):
            shared = [buffer.data for buffer in buffers]
            self._lent[i] = [weakref.ref(tensor) for tensor in shared]
            states[i] = _state(shared, state)

    def step(self, tokens: Tensor, states: list[LayerState]) -> Tensor:
        """Logits after one more token; these buffers are the states."""
        self._tokens.copy_(tokens)
        logits = self._run()
        self._length += bool(self._padding)
        for i, state in enumerate(states):
            if isinstance(state, AttentionState):
                states[i] = AttentionState(state.buffer, self._length, state.starts)
        return logits

    def _run(self) -> Tensor:
        if self._stream is None:
            return self._launch()
        if not self._warm:  # compiled and loaded off the stream that records
            self._warm = True
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                logits = self._launch()
            current.wait_stream(self._stream)
            logits.record_stream(current)
            return logits
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._logits = self._launch()
            self._graph = graph
        self._graph.replay()
        return self._logits.clone()

    def _launch(self) -> Tensor:
        return self._model(self._tokens, self._buffers, self._position, self._starts)

    def _check(self, states: Sequence[LayerState]) -> None:
        """Raise ValueError where a state does not fit."""
        if len(states) != len(self._buffers):
            raise ValueError(f"there are {len(states)} states of {len(self._buffers)} layers")
        for i, (state, buffers) in enumerate(zip(states, self._buffers, strict=True)):
            axis = 3 if isinstance(state, AttentionState) else None  # the capacity, which may differ
            found, expected = ([_without(t, axis) for t in some] for some in (_tensors(state), buffers))
            if found != expected:
                raise ValueError(f"the state of layer {i} is {found}: expected {expected}")

    def _point(self, attention: Sequence[AttentionState]) -> None:
        """Set the device's position and paddings, where these states are not at those of the last step."""
        paddings = [state.starts for state in attention]
        if any(one is not other for one, other in zip(paddings, self._padding, strict=True)):
            first = paddings[0]
            if not all(_same(first, other) for other in paddings[1:]):
                raise ValueError("the layers' states have different paddings: give states of one text")
            if first is not None and first.shape != self._starts.shape:
                raise ValueError(f"starts is {tuple(first.shape)}: it must be {tuple(self._starts.shape)}")
            if first is None:
                self._starts.zero_()
            else:
                self._starts.copy_(first)
            self._padding = paddings
        if attention and attention[0].length != self._length:
            self._length = attention[0].length
            self._position.fill_(self._length)

    def _give_back(self) -> None:
        """Whoever holds these buffers gets a copy of his own, in the tensors that he holds."""
        pairs = [
            (reference(), buffer)
            for buffers, lent in zip(self._buffers, self._lent, strict=True)
            for buffer, reference in zip(buffers, lent, strict=True)
        ]
        copies = [(tensor, buffer.clone()) for tensor, buffer in pairs if tensor is not None]
        self._lent = [[_nobody] * len(some) for some in self._buffers]  # whatever fails from here on: nobody's
        for tensor, copy in copies:
            tensor.data = copy


def _buffers(state: LayerState, capacity: int) -> list[Tensor]:
    """Of a layer whose empty state this is."""
    if isinstance(state, AttentionState):
        shape = list(state.buffer.shape)
        shape[3] = capacity
        return [state.buffer.new_empty(shape)]
    return _tensors(state)


def _tensors(state: LayerState) -> list[Tensor]:
    if isinstance(state, AttentionState):
        return [state.buffer]
    return [] if state is None else [*state]


def _state(tensors: Sequence[Tensor], like: LayerState) -> LayerState:
    if isinstance(like, AttentionState):
        return AttentionState(tensors[0], like.length, like.starts)
    return None if like is None else MambaState(*tensors)


def _without(tensor: Tensor, axis: int | None) -> tuple[int, ...]:
    """The shape, but for one axis."""
    return tuple(size for i, size in enumerate(tensor.shape) if i != axis)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _capacity(length: int) -> int:
    """For a text that goes on: a power of two with room for a quarter more."""
    return max(FIRST_CAPACITY, 1 << (length + length // 4).bit_length())


def _nobody() -> None:
    return None


@contextmanager
def _plainly(model: HybridLM) -> Iterator[None]:
    """On the model's device, without gradients or autocast; and its tensors are no inference tensors, which could not
    be written to where inference mode is off."""
    weight = model.embedding.weight
    device = torch.cuda.device(weight.device) if weight.is_cuda else nullcontext()
    with torch.inference_mode(False), torch.no_grad(), full_precision(weight), device:
        yield
