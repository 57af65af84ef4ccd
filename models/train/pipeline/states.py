"""Checkpoints and weights files: read with errors that name the file, written whole or not at all.

Both are dictionaries with `config`, `average` (the network's tensors, perhaps in half precision) and `seen`; a
checkpoint also has what a run needs to go on.
"""

import hashlib
import io
from pathlib import Path

import torch

from render.files import write_whole

from .config import NETWORKS
from .network import Parser


CLASS_BIAS, BACKGROUND = "predictor.class_head.bias", 0
AUXILIARY = "auxiliary."  # begins the names of what only training needs


class StateError(Exception):
    """A checkpoint or weights file that cannot be used; names it and says what to do."""


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_state(path: Path, state: dict) -> None:
    """Writes a checkpoint or weights file."""
    file = io.BytesIO()
    torch.save(state, file)
    write_whole(path, file.getvalue())


def read_state(path: Path, device="cpu") -> dict:
    """A checkpoint or weights file as it was saved."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise StateError(f"{path} does not exist; train first (see README)") from error
    except Exception as error:  # torch raises many kinds for a file that is cut off or something else
        raise StateError(f"{path} is not a whole checkpoint or weights file ({kind(error)}); make it again") from error
    if not isinstance(state, dict) or not {"config", "average", "seen"} <= set(state):
        raise StateError(f"{path} is no checkpoint or weights file of this program; see `train` and `weights`")
    return state


def kind(error: Exception) -> str:
    """An error's name and the first line of its text."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def fill(model: torch.nn.Module, tensors: dict, path: Path) -> None:
    """Gives a network the tensors of a file; the file must be of the same network. Auxiliary classifiers that the file
    lacks stay what they are, and those that the network lacks are left out."""
    tensors = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
    try:
        model.load_state_dict(with_auxiliary_of(model.state_dict(), tensors))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise StateError(f"{path} holds another network ({lines[min(1, len(lines) - 1)][:120]}); name its own with --set or --network") from error


def with_auxiliary_of(own: dict, tensors: dict) -> dict:
    """`tensors` with the auxiliary classifiers that `own` has and no others; those that they lack are `own`'s."""
    known = {k: v for k, v in tensors.items() if k in own or not k.startswith(AUXILIARY)}
    return {k: v for k, v in own.items() if k.startswith(AUXILIARY)} | known


def network_of(state: dict, path: Path) -> str:
    """The name of the network that a state belongs to."""
    name = state["config"].get("network")
    if name not in NETWORKS:
        raise StateError(f"{path} holds a network {name!r}; this program knows {sorted(NETWORKS)}")
    return name


def load_parser(path: Path, device="cpu") -> Parser:
    """The averaged network of a checkpoint or of a weights file, ready to run."""
    return averaged_parser(read_state(path, device), path, device)


def averaged_parser(state: dict, path: Path, device="cpu") -> Parser:
    """The averaged network of a state that was read from `path`, ready to run."""
    model = Parser(NETWORKS[network_of(state, path)])
    fill(model, state["average"], path)
    return model.to(device, memory_format=torch.channels_last).eval()


def pictures_seen(state: dict) -> int:
    """How many pictures the weights of a state have seen, the weights they began from included."""
    return state["seen"] + state.get("seen_before", 0)


def save_weights(checkpoint: Path, out: Path, toward: Path | None = None, share: float = 0.0, background: float = 0.0) -> None:
    """The averaged weights of a checkpoint as a weights file; with `toward`, `share` of the way to that file's weights.
    `background` is added to the class head's bias of the background: fewer false alarms, and fewer people.

    Between the weights that a run began from and those it ended with there are often better ones than either (Wortsman
    et al. 2022, arXiv:2109.01903). The two must be of one run: others have their channels in another order.
    """
    state = read_state(checkpoint)
    if toward is not None:
        state = state | {"average": between(state, beginning(state, toward), share, toward)}
    if background:
        bias = state["average"][CLASS_BIAS].clone()
        bias[BACKGROUND] += background
        state = state | {"average": state["average"] | {CLASS_BIAS: bias}}
    write_weights(state, out)


def beginning(state: dict, path: Path) -> dict:
    """The averaged weights of a file that the run of `state` began from, in the form in which it began."""
    other = read_state(path)
    if not state["config"].get("rescale"):
        return other["average"]
    model = averaged_parser(other, path)
    model.rescale()
    return model.state_dict()


def between(state: dict, others: dict, share: float, path: Path) -> dict:
    """Tensors `share` of the way, 0 to 1, from a state's averaged weights to others, which were read from `path`. Auxiliary
    classifiers are not shipped: where the other file has none, they stay."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}: from 0, the checkpoint's own weights, to 1, those of the other file")
    own = state["average"]
    others = with_auxiliary_of(own, others)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in others.items()}:
        raise StateError(f"{path} holds another network than the checkpoint; both must be of one run")
    mixed = lambda a, b: torch.lerp(a.float(), b.float(), share) if a.is_floating_point() else a
    return {name: mixed(value, others[name]) for name, value in own.items()}


def write_weights(state: dict, out: Path) -> None:
    """The averaged weights alone as float16, small enough to keep; a run can start from them."""
    half = {k: v.half() if v.dtype.is_floating_point else v for k, v in state["average"].items()}
    save_state(out, {"config": state["config"], "average": half, "seen": pictures_seen(state)})
