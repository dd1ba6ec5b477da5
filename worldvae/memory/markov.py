"""No memory but the last latent and action."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory.latent_state import LatentState
from worldvae.memory.memory import Memory
from worldvae.networks import JointMLP, PerceptronKind


@dataclass(frozen=True)
class MarkovConfig:
    """Settings of the memory `markov`.

    Attributes:
        carry: whether h ends with the action itself, for rewards that charge it.
    """

    carry: bool = False


class MarkovMemory(Memory):
    """h' = mlp[z, a] or [mlp[z, a], a], with a learnt mlp[z, a] at the beginning.

    A state-space model, where all that lasts must pass through z. What a state carries (`LatentState.past`) is whether
    there was a step before it. Without that the first state would have to be as sure as any that follows another: z = 0
    and a = 0 say nothing that a later z and a could not say.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the hidden layer.
        kind: of that layer.
        carry: whether h ends with the action. What follows from an action is in h anyway, but not what it cost, unless
            rewards teach that, too.

    Raises:
        ValueError: if h is to carry the action and is no longer than it.

    Reference: Karl et al. 2017, "Deep Variational Bayes Filters"; Hafner et al. 2019 (the SSM of figure 2b).
    """

    def __init__(
        self,
        latent: int,
        action: int,
        size: int,
        hidden: int,
        kind: PerceptronKind = "normed",
        *,
        carry: bool = False,
    ) -> None:
        super().__init__(size, past=1)
        self.carried = action if carry else 0
        if size <= self.carried:
            raise ValueError(f"a memory of length {size} cannot carry an action of length {action}: make it longer")
        self.mix = JointMLP(latent, action, hidden, 1, size - self.carried, kind=kind)
        self.start = nn.Parameter(torch.zeros(size - self.carried))

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the action's share of the first layer, and the action behind it if it is carried."""
        out: Tensor = self.mix.project(action)
        return torch.cat([out, action], dim=-1) if self.carried else out  # (the action as exact as it is)

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch 1"]]:
        """Return the next memory, and that there was a step; the last memory is not read."""
        action = projected[:, projected.shape[1] - self.carried :]
        memory = self.mix(state.latent, projected[:, : projected.shape[1] - self.carried])
        start = self.start.to(memory.dtype)
        if state.past is None:
            memory, past = start.expand_as(memory), memory.new_ones(len(memory), 1)
        else:
            memory, past = torch.where(state.past > 0, memory, start), torch.ones_like(state.past)
        return torch.cat([memory, action], dim=1) if self.carried else memory, past
