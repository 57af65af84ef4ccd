"""The optimiser: Muon for kernels and projections, AdamW for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps along the nearest semi-orthogonal matrix
of the momentum, so that every direction of a weight matrix is learned at one pace. The step is scaled to the size of
an AdamW step (Liu et al. 2025, arXiv:2502.16982, section 2.2), so both halves share one learning rate.
"""

import torch
from torch import nn

# Coefficients of the quintic iteration, from the same source: they trade exactness for a steep start at zero.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
# Size (root mean square) of a typical AdamW step, in learning rates.
STEP_SIZE = 0.2
# Heads whose rows are classes: their rows are learned from very unequal numbers of examples, which AdamW evens out.
HEADS = ("class_head", "dense")


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """About U V^T of each matrix = U S V^T, (N, rows, columns), by Newton-Schulz iteration; singular values end in
    0.7..1.2.

    Every step multiplies by a polynomial of the Gram matrix, so the steps are done on the small Gram matrix alone and
    the matrix itself is multiplied once, in the end. Kernels have far fewer rows than columns, or the reverse.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    gram = x @ x.mT
    unit = torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
    a, b, c = QUINTIC
    product = unit
    for _ in range(ITERATIONS):
        step = a * unit + b * gram + c * (gram @ gram)
        product = step @ product
        gram = step @ gram @ step
    x = product @ x
    return x.mT if tall else x


def parameter_groups(model: nn.Module, weight_decay: float) -> tuple:
    """Splits a model's parameters: (matrices for Muon, AdamW groups).

    AdamW gets no decay for norms, biases, scales and the queries.
    """
    matrices, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "scale" in name or name in ("query", "query_position", "level"):
            plain.append(parameter)
        elif any(head in name for head in HEADS):
            decayed.append(parameter)
        else:
            matrices.append(parameter)
    return matrices, [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; kernels (outputs, inputs, h, w) count as (outputs, inputs h w) matrices."""

    def __init__(self, matrices: list, rate: float, weight_decay: float):
        super().__init__(matrices, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One step on every matrix that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            shapes = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for parameters in shapes.values():
                self.move(parameters, group["lr"], group["weight_decay"])

    def move(self, parameters: list, rate: float, weight_decay: float) -> None:
        """Nesterov momentum, its orthogonal factor, decoupled weight decay; for parameters of one matrix shape."""
        directions = orthogonal(torch.stack([self.direction(p).flatten(1) for p in parameters]))
        size = STEP_SIZE * max(directions.shape[1:]) ** 0.5
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.mul_(1 - rate * weight_decay)
            parameter.add_(direction.reshape(parameter.shape), alpha=-rate * size)

    def direction(self, parameter: torch.Tensor) -> torch.Tensor:
        """The gradient with Nesterov momentum."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)


class Optimiser:
    """Muon and AdamW, or AdamW alone, behind the face of one optimiser."""

    def __init__(self, model: nn.Module, kind: str, rate: float, weight_decay: float):
        matrices, rest = parameter_groups(model, weight_decay)
        if kind == "muon":
            first = Muon(matrices, rate, weight_decay)
        elif kind == "adamw":
            first = torch.optim.AdamW(matrices, rate, weight_decay=weight_decay, fused=True)
        else:
            raise ValueError(f"optimiser {kind!r} is neither muon nor adamw")
        self.parts = [first, torch.optim.AdamW(rest, rate, fused=True)]

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One step of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> list:
        """The states of both, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list) -> None:
        """Takes the states back from a checkpoint."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
