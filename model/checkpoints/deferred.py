"""Stand-ins for tensors that `torch.save` builds one after the other; its file is, byte for byte, that of the tensors.

`torch.save` pickles what a tensor is, and writes the storages after it: each that is on another device it asks for
its copy on the CPU, which it drops when it is written. A storage on the meta device whose copy is built when it is
asked for therefore takes no memory before.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.keymap import Planned


class Deferred:
    """In place of a tensor in what `torch.save` is given."""

    def __init__(self, planned: Planned) -> None:
        self._storage = _Storage(planned.bytes, device="meta")
        self._storage.make = planned.make
        self._dtype = planned.dtype
        self._shape = planned.shape

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """What `Tensor.__reduce_ex__` says of a contiguous tensor on the CPU."""
        storage = torch.storage.TypedStorage(wrap_storage=self._storage, dtype=self._dtype, _internal=True)
        storage._fake_device = "cpu"  # type: ignore[assignment]  # a string as of a tensor's: pickle writes it once
        stride = torch.empty(self._shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, self._shape, stride, False, OrderedDict())


class _Storage(torch.UntypedStorage):
    """Of a tensor that is not yet built."""

    make: Callable[[], Tensor]

    def cpu(self) -> torch.UntypedStorage:
        """That of the tensor, and of nothing besides."""
        tensor = self.make()
        whole = tensor.untyped_storage().nbytes() == self.nbytes()
        return (tensor if whole else tensor.clone()).untyped_storage()


def deferred(tensors: Iterable[Planned]) -> dict[str, Deferred]:
    """The tensors by their keys; those of the same parameters, as a tied head, are one, which is stored once."""
    found: dict[Any, Deferred] = {}
    return {
        planned.key: found.setdefault((planned.parameters, planned.shape, planned.dtype), Deferred(planned))
        for planned in tensors
    }
