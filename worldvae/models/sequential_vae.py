"""A world model: the sequential VAE, built from interchangeable parts.

    h_t = memory(h_{t-1}, z_{t-1}, a_{t-1})        q(z_t | h_t, e_t)  posterior        p(z_t | h_t)  prior

Agents, films and training use only what the protocol `WorldModel` promises; diagnostics also use the parts.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.likelihoods import BernoulliLikelihood, DiffusionLikelihood, ScalarGaussianLikelihood
from worldvae.memory import LatentState
from worldvae.models.parts import (
    WorldModelConfig,
    autocast,
    choose_precision,
    make_family,
    make_latents,
    make_memory,
    make_reward,
    make_stages,
)
from worldvae.models.probabilistic import Inferred, Probabilistic
from worldvae.models.senses import Senses
from worldvae.models.world_model import Loss, Policy
from worldvae.networks import MLP
from worldvae.objectives import ELBOConfig, Terms, elbo_loss
from worldvae.posteriors import Smoother
from worldvae.priors import Ensemble
from worldvae.types import ActionLayout, Batch, Dream, Kind, Modality, Observation, ObservationLayout, State, weakest


class SequentialVAE(nn.Module, Probabilistic):
    """A sequential VAE over observations, rewards and continuations.

    Args:
        observation: what the environment shows.
        action: shape of the action vector.
        config: the parts and their sizes.
        objective: weights of the ELBO's terms in the loss.
    """

    def __init__(
        self,
        observation: ObservationLayout,
        action: ActionLayout,
        config: WorldModelConfig | None = None,
        objective: ELBOConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or WorldModelConfig()
        self.objective = objective or ELBOConfig()
        self.observation_layout, self.action_layout = observation, action
        hidden, layers = config.resolve("hidden"), config.resolve("layers")
        self.family = make_family(config)
        latent, memory = self.family.latent_size, config.resolve("memory_size")

        features, self.stages = memory + latent, make_stages(config)
        self.senses = Senses(observation, self.stages.shown_size(memory, latent), config)
        self.memory = make_memory(config, latent, action.size)
        embedding = self.senses.embedding_size
        self.prior, self.posterior = make_latents(config, self.family, memory, embedding)
        self.ensemble = Ensemble(memory, self.family, hidden, config.ensemble) if config.ensemble else None
        self.smoother = Smoother(embedding, action.size, hidden) if config.context == "smooth" else None
        self.reward_head = make_reward(config, features)
        self.continuation_head = BernoulliLikelihood(MLP(features, hidden, layers, 1, kind=config.perceptron_kind))

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def kl_is_estimated(self) -> bool:
        """Whether KL(q || p) has no closed form here and is estimated from one sample of q."""
        return self.posterior.estimates_kl or self.prior.estimates_kl

    @property
    def density_kind(self) -> Kind:
        """What kind of number log p(x, z | h) is: the prior's kind; with a diffusion decoder, a noisy bound at best."""
        noisy = any(isinstance(decoder, DiffusionLikelihood) for decoder in self.senses.decoders.values())
        return weakest("lower_bound" if noisy else "exact", self.prior.kind)

    @property
    def feature_size(self) -> int:
        """Length of `State.features`."""
        return self.memory.size + self.family.latent_size

    @property
    def hidden(self) -> int:
        """Width of the hidden layers of the perceptrons."""
        return self.config.resolve("hidden")

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of imagined features is whole: it is."""
        return True

    @property
    def shows(self) -> frozenset[Modality]:
        """The modalities that `decode` accepts."""
        return self.senses.shows

    def initial(self, batch: int) -> LatentState:
        """Return the zero state from which every episode starts."""
        zeros = torch.zeros(batch, self.feature_size, device=self.device)
        past = torch.zeros(batch, self.memory.past_size, device=self.device) if self.memory.past_size else None
        return LatentState(zeros[:, : self.memory.size], zeros[:, self.memory.size :], past)

    @torch.no_grad()
    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Initialise the decoders to predict the mean frame and vector of `observation` (any leading shape).

        If `reward` is given, a Gaussian reward head is initialised to its mean and scale.

        Call it once, before the first update: what never changes in a world then needs no learning, and the first
        gradients are about what does change, however small that is on the screen.
        """
        self.senses.calibrate(observation)
        if reward is not None and isinstance(self.reward_head, ScalarGaussianLikelihood):
            self.reward_head.offset.copy_(reward.mean())
            spread = reward.std(correction=0)
            self.reward_head.scale.copy_(torch.where(spread > 1e-6, spread.clamp(min=1e-2), 1.0))

    @property
    def precision(self) -> str:
        """What convolutions and imagination compute in, "float32" or "bfloat16"; measured once for "auto"."""
        return choose_precision(self.config, self.observation_layout.pixels, self.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which large matrix products and convolutions run in `precision`.

        `encode`, `decode`, `imagine` and `step` enter it themselves; code that learns or acts beside them, such as an
        actor, should enter it, too. The filter in `observe` computes in float32, and so do `reward` and `continuation`
        outside this context: one step has too few rows to gain from bfloat16. Memories and the parameters of
        distributions always leave it as float32.
        """
        return autocast(self.config, self.observation_layout.pixels, self.device)

    def in_float32(self) -> "SequentialVAE":
        """Return a copy that computes in float32 throughout and whose parameters require no gradients.

        bfloat16 has too few digits for a sum over the pixels of a frame.
        """
        model = copy.deepcopy(self).requires_grad_(False)
        model.config = model.senses.config = replace(self.config, precision="float32")
        return model

    def encode(self, observation: Observation) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (uint8 0..255 or float 0..1) and vectors into one embedding."""
        return self.senses.encode(observation)

    @property
    def looks_ahead(self) -> bool:
        """Whether the posterior of a row also reads later rows: a smoother, not a filter."""
        return self.smoother is not None

    def embed(self, rows: Batch) -> Float[Tensor, "batch time embedding"]:
        """Return the embeddings of rows `[batch, time]` for the posterior, smoothed if the model `looks_ahead`."""
        embedding = self.encode(rows.observation)
        if self.smoother is not None:
            embedding = self.smoother(embedding, rows.action, rows.is_first)
        return embedding

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
        learning: bool = False,
    ) -> Inferred:
        """Filter rows `[batch, time]`: return their posterior states, drawn from q, or the modes of q.

        See `WorldModel.observe` for the arguments. If `learning`, the memory reads noisy z if the prior `corrupts`.
        """
        size, length = batch.reward.shape
        # What does not depend on the previous step is computed for the whole slice at once. (`unbind`, not indexing:
        # the gradient of each index would be a tensor as large as the whole slice.)
        embedded = self.posterior.project(self.embed(batch)).unbind(1)
        state = self.initial(size) if state is None else LatentState.of(state)
        if action is None:
            action = torch.zeros_like(batch.action[:, 0])
        go_on = (~batch.is_first).float().unsqueeze(-1)
        previous = torch.cat([action.unsqueeze(1), batch.action[:, :-1]], dim=1) * go_on
        moves = self.memory.project(previous).unbind(1)
        noise = None if mode else self.posterior.noise((length, size), self.device, generator)

        corrupts = learning and self.prior.corrupts
        corruption = self.prior.history_noise((length, size), self.device, generator) if corrupts else None

        states, parameters = [], []
        for t in range(length):
            state = state.map(lambda x, keep=go_on[:, t]: x * keep)  # type: ignore[misc]
            memory, past = self.memory.advance(self.stages.onward(state), moves[t])
            memory = memory.float()
            latent, q = self.posterior.infer(memory, embedded[t], None if noise is None else noise[t])
            state = LatentState(memory, latent, past)
            states.append(state)
            parameters.append(q)
            if corruption is not None:
                state = replace(state, latent=self.prior.corrupt(latent, corruption[t]))
        return Inferred(LatentState.stack(states, dim=1), torch.stack(parameters, dim=1))

    def step(
        self, state: LatentState, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None
    ) -> LatentState:
        """Imagine one step: the memory advances, the prior draws z with `noise` (None: its mode)."""
        with self.autocast():
            return self._step(state, self.memory.project(action), noise).float()

    def _step(self, state: LatentState, move: Tensor, noise: Tensor | None) -> LatentState:
        if self.prior.corrupts and noise is not None:
            state = replace(state, latent=self.prior.recall(state.latent, noise))
        memory, past = self.memory.advance(state, move)
        if torch.is_grad_enabled():
            memory = memory.float()  # without gradients not yet: the next step would narrow it to the same numbers
        return LatentState(memory, self.prior.mode(memory) if noise is None else self.prior.step(memory, noise), past)

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
        last_only: bool = False,
    ) -> Dream:
        """Roll the prior forward from states `[batch]`, with draws from it or its modes.

        See `WorldModel.imagine` for the arguments.
        """
        if isinstance(actions, Tensor):
            horizon = actions.shape[1]
        assert horizon is not None, "imagining with a policy needs a horizon"
        if noise is None and not mode:
            noise = self.noise((horizon, start.size), generator)
        draws = [None] * horizon if noise is None else list(noise)
        with self.autocast():
            grad = torch.is_grad_enabled()  # with gradients, every state is kept in any case
            states, actions = self._roll(LatentState.of(start), actions, draws, last_only and not grad)
            if grad:
                seen = LatentState.stack(states, dim=1).float()
                imagined = seen[:, -1:] if last_only else seen
            else:
                seen = LatentState.joined(states)
                imagined = states[-1].float().map(lambda x: x.unsqueeze(1)) if last_only else seen
                if torch.is_autocast_enabled(self.device.type):  # narrow once here, not in each head
                    narrow = seen.features.to(torch.get_autocast_dtype(self.device.type))
                    seen = LatentState.split(narrow, self.memory.size)
            return Dream(start, imagined, actions, self.reward(seen).mean, self.continuation(seen).mean)

    def _roll(
        self, state: LatentState, actions: Tensor | Policy, draws: Sequence[Tensor | None], last_only: bool
    ) -> tuple[list[LatentState], Float[Tensor, "batch horizon action"]]:
        """Return the state after each step (with `last_only`, only the last one has a past) and the actions taken."""
        states: list[LatentState] = []

        def keep(state: LatentState) -> LatentState:
            if last_only and states:
                states[-1] = replace(states[-1], past=None)
            states.append(state)
            return state

        step = partial(_compiled_step(), self) if self.config.compile and not torch.is_grad_enabled() else self._step
        if isinstance(actions, Tensor):
            for move, draw in zip(self.memory.project(actions).unbind(1), draws, strict=True):
                state = keep(step(state, move, draw))
            return states, actions
        taken = []
        for draw in draws:
            taken.append(actions(state.float()))
            state = keep(step(state, self.memory.project(taken[-1]), draw))
        return states, torch.stack(taken, dim=1)

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        """Return p(x | h, z) of frames `[*batch, channel, height, width]` in 0..1, or of vectors (`Senses.decode`)."""
        return self.senses.decode(self.stages.shown(states), modality)

    def log_likelihood(self, states: State, observation: Observation) -> dict[Modality, Float[Tensor, "*batch"]]:
        """Return log p(x | h, z) in nats of each modality that was observed (`Senses.log_prob`)."""
        return self.senses.log_prob(self.stages.shown(states), observation)

    def log_posterior(self, states: State, embedding: Float[Tensor, "*shape embedding"]) -> Float[Tensor, "*batch"]:
        """Return log q(z | h, e) in nats of states, for embeddings e of a leading shape that broadcasts to theirs."""
        memory, latent = LatentState.of(states).memory, LatentState.of(states).latent
        projected = self.posterior.project(embedding)
        _, q = self.posterior.infer(memory, projected.expand(*memory.shape[:-1], -1), None)
        return self.posterior.distribution(q).log_prob(latent)

    def in_shown_units(
        self, states: State, observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the observation and what states decode to, both as frames in 0..1 or as standardised vectors."""
        return self.senses.in_shown_units(self.stages.shown(states), observation)

    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames that p(x | h, z) can give: rendered by a diffusion decoder, else its mean."""
        return self.senses.render(self.stages.shown(states), steps, generator)

    def disagreement(self, states: State) -> Float[Tensor, "*batch"]:
        """Return how much the means of the ensemble's heads differ, in units of z: large where the model is uncertain.

        Raises:
            ValueError: If the model has no ensemble.
        """
        if self.ensemble is None:
            raise ValueError("this model has no ensemble, and so no disagreement: train with model.ensemble=5")
        with self.autocast():
            return self.ensemble.disagreement(LatentState.of(states).memory).float()

    def reward(self, states: State) -> Distribution:
        """Return p(r | h, z) of the reward that arrives with a state."""
        return self.reward_head(states.features)  # type: ignore[no-any-return]

    def continuation(self, states: State) -> Distribution:
        """Return the Bernoulli distribution of the episode continuing after a state (1 - termination)."""
        return self.continuation_head(states.features)  # type: ignore[no-any-return]

    def elbo(
        self, batch: Batch, observed: Inferred, decode_steps: int = 0, generator: torch.Generator | None = None
    ) -> Terms:
        """Return the terms of E_q[log p(x, r, c | h, z)] - KL(q || p) for every row.

        Args:
            batch: the rows that were observed.
            observed: `observe(batch)`.
            decode_steps: number of frames decoded per slice, on average (0: all).
            generator: decides which frames are decoded.
        """
        states = replace(observed.posterior, past=None)  # no head reads the past: do not copy it
        q = self.posterior.distribution(observed.parameters)
        dynamics, representation = self.prior.balanced_kl(q, states.latent, states.memory)
        pixels = vector = None
        if batch.observation.pixels is not None:
            pixels = self._pixel_nats(batch.observation.pixels, states, decode_steps, generator)
        if batch.observation.vector is not None:
            vector = self.log_likelihood(states, Observation(vector=batch.observation.vector))["vector"]
        states = self.stages.onward(states)
        return Terms(
            pixels,
            vector,
            reward=self.reward(states).log_prob(batch.reward),
            continuation=self.continuation(states).log_prob((~batch.termination).float()),
            kl_dynamics=dynamics,
            kl_representation=representation,
            ensemble=None if self.ensemble is None else self.ensemble.kl(q, states.latent, states.memory),
        )

    def _pixel_nats(
        self, frames: Tensor, states: State, decode_steps: int, generator: torch.Generator | None
    ) -> Float[Tensor, "batch time"]:
        """Return log p(x | h, z) of all frames, or of random rows only: those are scaled up, and others are 0."""
        size, length = frames.shape[:2]
        if not 0 < decode_steps < length:
            return self.log_likelihood(states, Observation(frames))["pixels"]
        picked = torch.randperm(size * length, generator=generator, device=frames.device)[: size * decode_steps]
        found = self.log_likelihood(states.flatten()[picked], Observation(frames.flatten(0, 1)[picked]))["pixels"]
        scattered = found.new_zeros(size * length).index_put((picked,), found * (length / decode_steps))
        return scattered.view(size, length)

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        """Return the negative ELBO of a batch, weighted by `objective`; its metrics are the terms in nats per row."""
        observed = self.observe(batch, generator=generator, learning=True)
        terms = self.elbo(batch, observed, self.objective.decode_steps, generator)
        value = elbo_loss(terms, self.objective, self.kl_is_estimated)
        return Loss(value, observed.posterior.detach(), terms.means())

    def updated(self) -> None:
        """Do nothing: this model has no parameters besides those that the optimiser changes."""


@cache
def _compiled_step() -> Callable[..., LatentState]:
    """Return the imagined step, which compiles itself when it is first called with tensors of a new shape.

    All models share this one function: a step compiled for one model would use that model's weights in copies of the
    model, too.
    """
    return torch.compile(SequentialVAE._step, dynamic=False)
