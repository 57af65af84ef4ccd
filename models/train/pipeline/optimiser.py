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
HEADS = ("class_head", "dense", "auxiliary")


def newton_schulz(grams: torch.Tensor) -> torch.Tensor:
    """Factors P (N, n, n) so that P X is about U V^T of X = U S V^T, from Gram matrices X X^T; singular values end in
    0.7..1.2.

    Every step of the iteration multiplies by a polynomial of the Gram matrix, so all steps are done on the small Gram
    matrix alone and the matrix itself is multiplied once, in the end.
    """
    size = grams.diagonal(dim1=1, dim2=2).sum(1).clamp_min(0).sqrt()[:, None, None] + 1e-7
    gram = grams / size**2
    unit = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype)
    a, b, c = QUINTIC
    product = unit / size
    for _ in range(ITERATIONS):
        step = a * unit + b * gram + c * (gram @ gram)
        product = step @ product
        gram = step @ gram @ step
    return product


def orthogonal(matrices: list) -> list:
    """About U V^T of each matrix (rows, columns). Those with equally many rows, or columns where these are fewer, are
    iterated together: kernels have far fewer outputs than inputs, or the reverse, and there are few numbers of channels."""
    flat = [m.mT if m.shape[0] > m.shape[1] else m for m in matrices]
    groups = {}
    for index, x in enumerate(flat):
        groups.setdefault(len(x), []).append(index)
    found = [None] * len(flat)
    for indices in groups.values():
        factors = newton_schulz(torch.stack([flat[k] @ flat[k].mT for k in indices]))
        for k, factor in zip(indices, factors, strict=True):
            x = factor @ flat[k]
            found[k] = x.mT if matrices[k].shape[0] > matrices[k].shape[1] else x
    return found


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
        """One step on every matrix that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.move(parameters, group["lr"], group["weight_decay"])

    def move(self, parameters: list, rate: float, weight_decay: float) -> None:
        """Nesterov momentum, its orthogonal factors, decoupled weight decay."""
        gradients = [p.grad for p in parameters]
        momenta = [self.momentum(p) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        directions = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        factors = orthogonal([d.flatten(1) for d in directions])
        sizes = [-rate * STEP_SIZE * max(f.shape) ** 0.5 for f in factors]
        steps = torch._foreach_mul([f.reshape(p.shape) for f, p in zip(factors, parameters, strict=True)], sizes)
        torch._foreach_mul_(parameters, 1 - rate * weight_decay)
        torch._foreach_add_(parameters, steps)

    def momentum(self, parameter: torch.Tensor) -> torch.Tensor:
        """A parameter's momentum."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


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
        """Takes the states back from a checkpoint, but for the weight decay, which is the recipe's."""
        for part, state in zip(self.parts, states, strict=True):
            decays = [group["weight_decay"] for group in part.param_groups]
            part.load_state_dict(state)
            for group, decay in zip(part.param_groups, decays, strict=True):
                group["weight_decay"] = decay
