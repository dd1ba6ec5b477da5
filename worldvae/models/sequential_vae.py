"""The world model: a sequential VAE made of interchangeable parts, and its six verbs.

    h_t = memory(h_{t-1}, z_{t-1}, a_{t-1})        q(z_t | h_t, e_t)  posterior        p(z_t | h_t)  prior

`encode, observe, imagine, decode, reward, continuation` are all that a planner, an actor, a film or a diagnostic knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import symlog
from worldvae.likelihoods import (
    BernoulliImageLikelihood,
    BernoulliLikelihood,
    DiffusionLikelihood,
    GaussianLikelihood,
    Rendering,
    ScalarGaussianLikelihood,
)
from worldvae.models.parts import (
    WorldModelConfig,
    choose_precision,
    make_family,
    make_frames,
    make_latents,
    make_memory,
    make_reward,
    make_vector,
)
from worldvae.networks import MLP, ConvEncoder, StridedEncoder
from worldvae.posteriors import Smoother
from worldvae.priors import Ensemble
from worldvae.types import ActionLayout, Batch, Dream, Kind, Observation, ObservationLayout, State, TensorTree

Policy = Callable[[State], Float[Tensor, "batch action"]]


@dataclass(frozen=True)
class Observed(TensorTree):
    """What `observe` returns: posterior states, and the parameters of the q they were drawn from."""

    posterior: State
    parameters: Float[Tensor, "batch time parameter"]


class WorldModel(nn.Module):
    """A sequential VAE over observations, rewards and continuations.

    Args:
        observation: what the environment shows.
        action: shape of the action vector.
        config: the parts and their sizes.
    """

    def __init__(
        self, observation: ObservationLayout, action: ActionLayout, config: WorldModelConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or WorldModelConfig()
        self.observation_layout, self.action_layout = observation, action
        hidden, layers = config.resolve("hidden"), config.resolve("layers")
        self.family = make_family(config)
        latent, memory = self.family.latent_size, config.resolve("memory_size")

        self.encoders = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        features = memory + latent
        self.two_stage = config.stages == "two"
        seen = latent if self.two_stage else features  # what a decoder reads
        embedding = 0
        if observation.pixels is not None:
            encoder, self.decoders["pixels"] = make_frames(config, observation.pixels, seen)
            self.encoders["pixels"] = encoder
            embedding += encoder.out_features
        if observation.vector is not None:
            self.encoders["vector"], self.decoders["vector"] = make_vector(config, observation.vector, seen)
            embedding += hidden
        self.memory = make_memory(config, latent, action.size)
        self.prior, self.posterior = make_latents(config, self.family, memory, embedding)
        self.ensemble = Ensemble(memory, self.family, hidden, config.ensemble) if config.ensemble else None
        self.smoother = Smoother(embedding, action.size, hidden) if config.context == "smooth" else None
        self.reward_head = make_reward(config, features)
        self.continuation_head = BernoulliLikelihood(MLP(features, hidden, layers, 1, plain=config.plain))

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @property
    def kl_is_estimated(self) -> bool:
        """Whether KL(q || p) has no closed form here, and is estimated at one sample of q."""
        return self.config.posterior == "flow" or self.prior.estimates_kl

    @property
    def density_kind(self) -> Kind:
        """What kind of number log p(x, z | h) is: the prior's, but a diffusion decoder knows a noisy bound at best."""
        noisy = any(isinstance(decoder, DiffusionLikelihood) for decoder in self.decoders.values())
        return "lower_bound" if noisy and self.prior.kind == "exact" else self.prior.kind

    @property
    def feature_size(self) -> int:
        """Length of `State.features`."""
        return self.memory.size + self.family.latent_size

    def initial(self, batch: int) -> State:
        """Return the zero state from which every episode starts."""
        zeros = torch.zeros(batch, self.feature_size, device=self.device)
        past = torch.zeros(batch, self.memory.past_size, device=self.device) if self.memory.past_size else None
        return State(zeros[:, : self.memory.size], zeros[:, self.memory.size :], past)

    @torch.no_grad()
    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Set what an untrained model predicts to the mean frame and vector of `observation` (any leading shape).

        And a Gaussian of rewards to the mean and the scale of `reward`, if it is given.

        Done once, before the first update: what never changes in a world then needs no learning, and the first
        gradients are about what does change, however small it is on the screen.
        """
        if observation.pixels is not None:
            mean = unit(observation.pixels).reshape(-1, *observation.pixels.shape[-3:]).mean(0)
            likelihood = self.decoders["pixels"]
            if not isinstance(likelihood, BernoulliImageLikelihood):  # which has no such thing
                cast(Tensor, likelihood.offset).copy_(mean)
            cast(ConvEncoder | StridedEncoder, self.encoders["pixels"]).centre.copy_(mean)
        if observation.vector is not None:
            rows = self.squash(observation.vector).reshape(-1, observation.vector.shape[-1])
            vector = self.likelihood("vector")
            vector.offset.copy_(rows.mean(0))
            vector.scale.copy_(rows.std(0, correction=0).clamp(min=1e-2))
        if reward is not None and isinstance(self.reward_head, ScalarGaussianLikelihood):
            self.reward_head.offset.copy_(reward.mean())
            spread = reward.std(correction=0)
            self.reward_head.scale.copy_(torch.where(spread > 1e-6, spread.clamp(min=1e-2), 1.0))

    def squash(self, vector: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return observed vectors in the units that are encoded and decoded: symlog (`config.vector_symlog`)."""
        return symlog(vector) if self.config.vector_symlog else vector

    def likelihood(self, modality: str) -> GaussianLikelihood:
        """Return the module behind `decode`, for "pixels" or "vector"."""
        return cast(GaussianLikelihood, self.decoders[modality])  # a ModuleDict forgets the types of its parts

    @property
    def precision(self) -> str:
        """What convolutions and imagination compute in, "float32" or "bfloat16"; measured once for "auto"."""
        return choose_precision(self.config, self.observation_layout.pixels, self.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which large matrix products and convolutions run in `precision`.

        `encode`, `decode`, `imagine` and `step` enter it by themselves; it is for what learns or acts beside them, such
        as an actor. The filter of `observe` computes in float32, as do `reward` and `continuation` outside of it: the
        few rows of a step gain nothing. Every memory and the parameters of every distribution leave it as float32.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def encode(self, observation: Observation) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (uint8 0..255 or float 0..1) and vectors into one embedding."""
        parts = []
        if observation.pixels is not None:
            with self.autocast():
                parts.append(self.encoders["pixels"](observation.pixels).float())
        if observation.vector is not None:
            vector = self.likelihood("vector")
            parts.append(self.encoders["vector"]((self.squash(observation.vector) - vector.offset) / vector.scale))
        return torch.cat(parts, dim=-1)

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Observed:
        """Filter through rows of data: the posterior states of every row.

        Args:
            batch: rows `[batch, time]`; `batch.action[:, t]` is used for the transition into row t + 1.
            state: posterior of the row before the first one (default: zero).
            action: action taken in that row (default: zero).
            generator: source of the posterior's samples.
            mode: follow the mode of q instead of a draw from it.
        """
        size, length = batch.reward.shape
        # All that does not wait for the step before is done for the whole slice at once. (Unbound and not indexed: the
        # gradient of an index is a tensor of the size of the whole.)
        embedding = self.encode(batch.observation)
        if self.smoother is not None:
            embedding = self.smoother(embedding, batch.action, batch.is_first)
        embedded = self.posterior.project(embedding).unbind(1)
        state = state or self.initial(size)
        if action is None:
            action = torch.zeros_like(batch.action[:, 0])
        go_on = (~batch.is_first).float().unsqueeze(-1)
        previous = torch.cat([action.unsqueeze(1), batch.action[:, :-1]], dim=1) * go_on
        moves = self.memory.project(previous).unbind(1)
        noise = None if mode else self.posterior.noise((length, size), self.device, generator)

        states, parameters = [], []
        for t in range(length):
            state = state.map(lambda x, keep=go_on[:, t]: x * keep)  # type: ignore[misc]
            if self.two_stage:  # the memory learns on latents that it does not shape
                state = State(state.memory, state.latent.detach(), state.past)
            memory, past = self.memory.advance(state, moves[t])
            memory = memory.float()
            latent, q = self.posterior.infer(memory, embedded[t], None if noise is None else noise[t])
            state = State(memory, latent, past)
            states.append(state)
            parameters.append(q)
        return Observed(State.stack(states, dim=1), torch.stack(parameters, dim=1))

    def step(
        self, state: State, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None
    ) -> State:
        """Imagine one step: the memory moves on, the prior draws z from `noise` (None: its mode)."""
        with self.autocast():
            return self._step(state, self.memory.project(action), noise).map(Tensor.float)

    def _step(self, state: State, move: Tensor, noise: Tensor | None) -> State:
        memory, past = self.memory.advance(state, move)
        if torch.is_grad_enabled():
            memory = memory.float()  # else not yet: the next step would only narrow it again, to the same numbers
        return State(memory, self.prior.mode(memory) if noise is None else self.prior.step(memory, noise), past)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw the randomness of `imagine`, for the shape (horizon, batch)."""
        return self.prior.noise(shape, self.device, generator)

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"] | Policy,
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "horizon batch noise"] | None = None,
        mode: bool = False,
    ) -> Dream:
        """Roll the prior forward from `start`, with given actions or with a policy.

        Args:
            start: states `[batch]`.
            actions: actions `[batch, horizon, action]`, or a function from states `[batch]` to actions.
            horizon: number of steps; needed with a policy.
            generator: source of the prior's samples.
            noise: what `noise` has drawn for them beforehand.
            mode: follow the mode of the prior instead of a draw from it.
        """
        if isinstance(actions, Tensor):
            horizon = actions.shape[1]
        assert horizon is not None, "imagining with a policy needs a horizon"
        if noise is None and not mode:
            noise = self.noise((horizon, start.memory.shape[0]), generator)
        draws = [None] * horizon if noise is None else list(noise)
        with self.autocast():
            states, actions = self._roll(start, actions, draws)
            if torch.is_grad_enabled():
                imagined = seen = State.stack(states, dim=1).map(Tensor.float)
            else:
                imagined = seen = _joined(states)
                if torch.is_autocast_enabled(self.device.type):  # narrowed once, and not in each head
                    narrow = imagined.features.to(torch.get_autocast_dtype(self.device.type))
                    seen = State.split(narrow, self.memory.size)
            return Dream(start, imagined, actions, self.reward(seen).mean, self.continuation(seen).mean)

    def _roll(
        self, state: State, actions: Float[Tensor, "batch horizon action"] | Policy, draws: Sequence[Tensor | None]
    ) -> tuple[list[State], Float[Tensor, "batch horizon action"]]:
        """Return the state after each step of a roll-out, and the actions that were taken."""
        states: list[State] = []
        step = partial(_compiled_step(), self) if self.config.compile and not torch.is_grad_enabled() else self._step
        if isinstance(actions, Tensor):
            for move, draw in zip(self.memory.project(actions).unbind(1), draws, strict=True):
                state = step(state, move, draw)
                states.append(state)
            return states, actions
        taken = []
        for draw in draws:
            taken.append(actions(state.map(Tensor.float)))
            state = step(state, self.memory.project(taken[-1]), draw)
            states.append(state)
        return states, torch.stack(taken, dim=1)

    def decode(self, states: State, modality: Literal["pixels", "vector"] | None = None) -> Distribution:
        """Return p(x | h, z); `.mean` is `[*batch, channel, height, width]` in 0..1 for frames.

        Args:
            states: any leading shape.
            modality: "pixels" or "vector" (in the units of `squash`); default: pixels where the world has them.
        """
        if modality is None:
            modality = "pixels" if "pixels" in self.decoders else "vector"
        seen = states.latent if self.two_stage else states.features
        if modality == "pixels":
            with self.autocast():
                return self.decoders["pixels"](seen)  # type: ignore[no-any-return]
        return self.decoders["vector"](seen)  # type: ignore[no-any-return]

    @torch.no_grad()
    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames of p(x | h, z) that there are: rendered by a diffusion decoder, else its mean.

        Args:
            states: `[batch, *time]`. All that follows one another begins with the same noise: detail does not flicker.
            steps: strides from noise to a frame.
            generator: source of the noise, one frame for every element of the batch.
        """
        found = self.decode(states, "pixels")
        if not isinstance(found, Rendering):
            return found.mean
        shape = (*found.batch_shape[:1], *[1] * (len(found.batch_shape) - 1), *found.event_shape)
        noise = torch.randn(shape, device=self.device, generator=generator)
        return found.render(noise.expand_as(found.mean), steps)

    def disagreement(self, states: State) -> Float[Tensor, "*batch"]:
        """Return how far the heads of the ensemble are apart about z, in its units: where the model does not know.

        Raises:
            ValueError: If the model has no ensemble.
        """
        if self.ensemble is None:
            raise ValueError("this model has no ensemble that could disagree: train with model.ensemble=5")
        with self.autocast():
            return self.ensemble.disagreement(states.memory).float()

    def reward(self, states: State) -> Distribution:
        """Return p(r | h, z) of the reward that arrives with a state."""
        return self.reward_head(states.features)  # type: ignore[no-any-return]

    def continuation(self, states: State) -> Distribution:
        """Return the Bernoulli of the episode going on after a state (1 - termination)."""
        return self.continuation_head(states.features)  # type: ignore[no-any-return]


def _joined(states: Sequence[State]) -> State:
    """Return `State.stack(states, dim=1)` in float32, as views of its features, which are written in one pass."""
    parts = torch.cat([part for state in states for part in (state.memory, state.latent)], dim=-1)
    features = parts.unflatten(-1, (len(states), -1)).float()
    pasts = [state.past.float() for state in states if state.past is not None]
    return State.split(features, states[0].memory.shape[-1], torch.stack(pasts, dim=1) if pasts else None)


@cache
def _compiled_step() -> Callable[..., State]:
    """Return the imagined step, compiled when it is first called with tensors of a new shape.

    One function for all models: compiled for a model of its own, it would go on with the weights of that model in
    copies of it.
    """
    return torch.compile(WorldModel._step, dynamic=False)


def unit(pixels: Tensor) -> Float[Tensor, "*batch channel height width"]:
    """Return frames as float in 0..1, whether they come as uint8 or already as float."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
