"""Between the processor's memory and a GPU's, without waiting for what the GPU still has to do.

A copy from or to ordinary memory waits until the GPU has done all that it was told before; one from or to pinned memory
takes its turn. On the CPU nothing is copied.
"""

from functools import lru_cache

import numpy as np
import torch

ALIGNED = 16  # bytes: what the largest type of a tensor wants


@lru_cache(maxsize=1)
def can_pin() -> bool:
    """Whether the machine gives pinned memory, which a sandbox may refuse. Without it the same arrives, later."""
    try:
        return torch.empty(1, pin_memory=True).is_pinned()
    except RuntimeError:
        return False


def send(arrays: dict, device: torch.device) -> dict:
    """NumPy arrays as tensors on the device, by name. They travel as one copy, however many they are."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = slice(end, end + array.nbytes)
        end += -(-array.nbytes // ALIGNED) * ALIGNED
    packed = torch.empty(end, dtype=torch.uint8, pin_memory=device.type == "cuda" and can_pin())
    for name, array in arrays.items():
        packed.numpy()[places[name]] = array.reshape(-1).view(np.uint8)
    sent = packed.to(device, non_blocking=True)
    kind = lambda array: torch.from_numpy(np.empty(0, array.dtype)).dtype
    return {name: sent[places[name]].view(kind(array)).reshape(array.shape) for name, array in arrays.items()}


class Fetched:
    """Tensors on their way to the processor: what the device is told after them is not waited for."""

    def __init__(self, *tensors):
        self.tensors, self.event = tensors, None
        if tensors[0].is_cuda:
            place = lambda t: torch.empty(t.shape, dtype=t.dtype, pin_memory=can_pin())
            self.tensors = tuple(place(t).copy_(t, non_blocking=True) for t in tensors)
            self.event = torch.cuda.Event()
            self.event.record()

    def here(self) -> bool:
        """Whether they have arrived."""
        return self.event is None or self.event.query()

    def wait(self) -> tuple:
        """The tensors, in the processor's memory."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensors
