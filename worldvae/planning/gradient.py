"""Planning by gradients: several plans climb the return through the model, and the best one wins."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.planning.core import Plan, PlanConfig
from worldvae.planning.problems import Problems
from worldvae.planning.search import best_of
from worldvae.types import ActionLayout

MAX_START = 0.99  # a plan on the bound starts here: at the bound itself, a tanh has no gradient
CLASS_LOGIT = 2.0  # the logit of the class that a plan starts with, above those of the other classes


@dataclass(frozen=True)
class GradientConfig(PlanConfig):
    """Numbers of the planner.

    Attributes:
        restarts: plans that climb side by side: one from the previous plan, the others from random ones.
        learning_rate: of Adam, on what a tanh maps to the box and a softmax to the classes.
        std: standard deviation of the random plans.
    """

    iterations: int = 20
    restarts: int = 8
    learning_rate: float = 0.3
    std: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 1:
            raise ValueError(f"restarts={self.restarts} must be at least 1")
        if not 0 < self.learning_rate < inf:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0 and finite")
        if not 0 <= self.std < inf:
            raise ValueError(f"std={self.std} must be a standard deviation, at least 0 and finite")

    @property
    def breadth(self) -> int:
        """Plans that climb side by side."""
        return self.restarts


def gradient(problems: Problems, config: GradientConfig) -> Plan:
    """Plan by Adam on the return of a dream.

    Box entries are tanh(x). Of a one-hot block the model sees the likeliest class, and the gradient is that of the
    softmax (straight-through). NaN in a gradient counts as 0. In the end the model imagines the best plan of each
    restart and its last one once more, and the best of all of them is the plan: in a random model, the best of earlier
    iterations may only have been lucky.

    Raises:
        ValueError: If the model or the objective gives no gradient.

    Reference: Henaff et al. 2017, "Model-Based Planning with Discrete and Continuous Actions"; Bengio et al. 2013,
    "Estimating or Propagating Gradients Through Stochastic Neurons", for straight-through.
    """
    proposal = problems.warm_start(config.std)
    drawn = proposal.sample(config.restarts - 1, problems.draws)
    raw = unbounded(torch.cat([proposal.mode().unsqueeze(1), drawn], dim=1), problems.layout)
    best = bounded(raw, problems.layout)
    record = torch.full(raw.shape[:2], -torch.inf, device=raw.device, dtype=raw.dtype)
    with torch.enable_grad():
        raw = raw.detach().requires_grad_()
        adam = _Adam(config.learning_rate)
        for _ in problems.clock.rounds(config.iterations, reserve=1):  # for the last look
            actions = bounded(raw, problems.layout)
            returns = problems.returns(actions)
            better = returns.detach() > record
            record = torch.where(better, returns.detach(), record)
            best = torch.where(better[:, :, None, None], actions.detach(), best)
            raw = (raw.detach() + adam.step(_slope(returns, raw))).requires_grad_()
    with torch.no_grad():
        finalists = torch.cat([best, bounded(raw.detach(), problems.layout)], dim=1)
        plan, value = best_of(finalists, problems.returns(finalists), 1)
    return Plan(problems.hold(plan[:, 0]), value[:, 0])


class _Adam:
    """Adam's steps uphill; torch's own would load torch's compiler before the first plan.

    Reference: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.learning_rate, self.betas, self.eps, self.steps = learning_rate, betas, eps, 0
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def step(self, slope: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return what to add to the parameters."""
        a, b = self.betas
        self.steps += 1
        self.first = a * self.first + (1 - a) * slope
        self.second = b * self.second + (1 - b) * slope.square()
        spread = (self.second / (1 - b**self.steps)).sqrt() + self.eps
        return self.learning_rate / (1 - a**self.steps) * self.first / spread


def bounded(raw: Float[Tensor, "*batch action"], layout: ActionLayout) -> Float[Tensor, "*batch action"]:
    """Map any numbers to action vectors, with gradients."""
    parts = [torch.tanh(raw[..., : layout.continuous])]
    for block in layout.blocks:
        soft = torch.softmax(raw[..., block], dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
        parts.append(hard + (soft - soft.detach()))  # in this order it is hard to the last bit
    return torch.cat(parts, dim=-1)


def unbounded(actions: Float[Tensor, "*batch action"], layout: ActionLayout) -> Float[Tensor, "*batch action"]:
    """Return numbers that `bounded` maps to these actions, up to `MAX_START` and `CLASS_LOGIT`."""
    box = torch.atanh(actions[..., : layout.continuous].clamp(-MAX_START, MAX_START))
    return torch.cat([box, CLASS_LOGIT * actions[..., layout.continuous :]], dim=-1)


def _slope(returns: Float[Tensor, "batch sample"], raw: Tensor) -> Tensor:
    if not returns.requires_grad:
        raise ValueError(
            "the return does not depend on the actions in a way that can be differentiated: use a planner that "
            "samples, such as CEM, on this model and objective"
        )
    (slope,) = torch.autograd.grad(returns.sum(), raw)
    return slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
