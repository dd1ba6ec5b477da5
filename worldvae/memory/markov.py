"""A memory of the last latent and action only."""

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
        carry: whether h ends with the action itself, for rewards that depend on it (action costs).
    """

    carry: bool = False


class MarkovMemory(Memory):
    """h' = mlp[z, a] or [mlp[z, a], a]; at the beginning of an episode, a learned vector replaces mlp[z, a].

    A state-space model: everything that lasts must pass through z. A state also carries whether a step came before it
    (`LatentState.past`). Otherwise the prior of the first state could be no wider than that of a state after a step:
    z = 0 and a = 0 may also occur later.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the hidden layer.
        kind: kind of the hidden layer.
        carry: whether h ends with the action. h predicts the effects of an action in any case, but not its cost,
            unless rewards train h, too.

    Raises:
        ValueError: If h is to carry the action and is not longer than the action.

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
        """Return the part of the first layer that depends on the action only, followed by a carried action."""
        out: Tensor = self.mix.project(action)
        return torch.cat([out, action], dim=-1) if self.carried else out  # (keeps the action's precision)

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch 1"]]:
        """Return the next memory, and that a step has happened; the previous memory is not read."""
        action = projected[:, projected.shape[1] - self.carried :]
        memory = self.mix(state.latent, projected[:, : projected.shape[1] - self.carried])
        start = self.start.to(memory.dtype)
        if state.past is None:
            memory, past = start.expand_as(memory), memory.new_ones(len(memory), 1)
        else:
            memory, past = torch.where(state.past > 0, memory, start), torch.ones_like(state.past)
        return torch.cat([memory, action], dim=1) if self.carried else memory, past
