"""The ELBO of slices of episodes, as a function of offsets that are added to the encoder's parameters of q."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.models.probabilistic import Inferred, Probabilistic
from worldvae.posteriors import AmortisedPosterior
from worldvae.types import Batch

MAX_DECODED = 640
"""Number of latents decoded at once if no gradient is needed."""


@dataclass(frozen=True)
class Slices:
    """Rows of episodes, and the state before each slice.

    Attributes:
        rows: `[slice, time]`, all of which exist.
        state: posterior of the row before the first one; zero if the slice begins an episode.
        action: action taken in that row.
    """

    rows: Batch
    state: LatentState
    action: Float[Tensor, "slice action"]


def pick_slices(
    model: Probabilistic,
    rows: Batch,
    valid: Bool[Tensor, "episode time"],
    observed: Inferred,
    number: int,
    length: int,
    generator: torch.Generator,
) -> Slices:
    """Return random slices from the adjacent slices into which episodes `[episode, time]` can be cut.

    Args:
        model: the world model.
        rows: the episodes, from their first row on.
        valid: which rows exist.
        observed: the model's posterior of these rows.
        number: largest number of slices.
        length: rows per slice; fewer if no episode is that long.
        generator: source of the choice, on the CPU.
    """
    length = min(length, int(valid.sum(1).max()))
    places = [
        (episode, first)
        for episode, last in enumerate(valid.sum(1).tolist())
        for first in range(0, int(last) - length + 1, length)
    ]
    chosen = [places[i] for i in torch.randperm(len(places), generator=generator)[:number].tolist()]
    states, actions, zero = [], [], model.initial(1)
    for episode, first in chosen:
        states.append(observed.posterior[episode : episode + 1, first - 1] if first else zero)
        actions.append(rows.action[episode, first - 1] if first else torch.zeros_like(rows.action[episode, 0]))
    parts = [rows[episode : episode + 1, first : first + length] for episode, first in chosen]
    return Slices(Batch.cat(parts, dim=0), LatentState.cat(states, dim=0), torch.stack(actions))


class MovedBound:
    """sum_t log p(x_t | h_t, z_t) - KL(q_t || p(z_t | h_t)) with q_t = family(parameters(h_t, e_t) + d_t); no rewards.

    The model is copied, without gradients, and in float32: bfloat16 has too few digits for a sum over pixels.

    Args:
        model: a model whose posterior is an `AmortisedPosterior`.
        slices: the observations.
    """

    def __init__(self, model: Probabilistic, slices: Slices) -> None:
        self.model = model = model.in_float32()
        assert isinstance(model.posterior, AmortisedPosterior)
        self.posterior, self.device = model.posterior, model.device
        rows, self.start = slices.rows.to(self.device), slices.state.to(self.device).detach()
        self.number, self.length = rows.reward.shape
        self.shape = (self.number, self.length, self.posterior.family.parameter_size)
        with torch.no_grad():
            embedding = model.embed(rows)
            self.embedded = self.posterior.project(embedding)
            self.go_on = (~rows.is_first).to(embedding).unsqueeze(-1)
            before = torch.cat([slices.action.to(self.device).unsqueeze(1), rows.action[:, :-1]], dim=1)
            self.moves = model.memory.project(before * self.go_on)
        self.rows = rows

    def noise(self, samples: int, generator: torch.Generator) -> Float[Tensor, "sample slice time noise"]:
        """Draw the noise of q."""
        return self.posterior.noise((samples, self.number, self.length), self.device, generator)

    def infer(
        self,
        offsets: Float[Tensor, "slice time parameter"],
        noise: Float[Tensor, "sample slice time noise"],
        *,
        myopic: bool = False,
    ) -> tuple[LatentState, Float[Tensor, "sample slice time parameter"]]:
        """Return states `[sample, slice, time]` and the parameters of q; `myopic` stops gradients between rows."""
        samples = len(noise)

        def repeated(x: Tensor) -> Tensor:
            return x.repeat(samples, *[1] * (x.dim() - 1))

        state = self.start.map(repeated)
        states, parameters = [], []
        columns = zip(*(repeated(x).unbind(1) for x in (self.moves, self.embedded, self.go_on, offsets)), strict=True)
        for (move, embedded, keep, offset), draw in zip(columns, noise.flatten(0, 1).unbind(1), strict=True):
            state = (state.detach() if myopic else state).map(lambda x, keep=keep: x * keep)  # type: ignore[misc]
            memory, past = self.model.memory.advance(state, move)
            memory = memory.float()
            parameters.append(self.posterior.parameters_at(memory, embedded) + offset)
            state = LatentState(memory, self.posterior.sample(parameters[-1], draw), past)
            states.append(LatentState(memory, state.latent))
        both = LatentState.stack(states, dim=1).map(lambda x: x.unflatten(0, (samples, self.number)))
        return both, torch.stack(parameters, dim=1).unflatten(0, (samples, self.number))

    def log_likelihood(self, states: LatentState) -> Float[Tensor, "sample slice time"]:
        """Return log p(x_t | h_t, z_t)."""
        nothing = torch.zeros(states.latent.shape[:-1], device=self.device)
        return sum(self.model.log_likelihood(states, self.rows.observation).values(), start=nothing)

    def bound(
        self,
        offsets: Float[Tensor, "slice time parameter"],
        noise: Float[Tensor, "sample slice time noise"],
        *,
        myopic: bool = False,
    ) -> Float[Tensor, "sample slice time"]:
        """Return the terms of the ELBO of every row and sample, with the KL in closed form if there is one."""
        states, parameters = self.infer(offsets, noise, myopic=myopic)
        q = self.posterior.distribution(parameters)
        return self.log_likelihood(states) - self.model.prior.kl(q, states.latent, states.memory)

    @torch.no_grad()
    def measure(
        self, offsets: Float[Tensor, "slice time parameter"], noise: Float[Tensor, "sample slice time noise"]
    ) -> tuple[Float[Tensor, "sample slice"], Float[Tensor, "sample slice"]]:
        """Return the ELBO of whole slices, and log p(x, z) - log q(z), which have the same mean."""
        bounds, weights = [], []
        for draw in noise.split(max(1, MAX_DECODED // (self.number * self.length))):
            states, parameters = self.infer(offsets, draw)
            q, seen = self.posterior.distribution(parameters), self.log_likelihood(states)
            bounds.append((seen - self.model.prior.kl(q, states.latent, states.memory)).sum(-1))
            prior = self.model.prior.log_prob(states.latent, states.memory)
            weights.append((seen + prior - q.log_prob(states.latent)).sum(-1))
        return torch.cat(bounds), torch.cat(weights)
