"""World models whose state is the last frames: the next frame is drawn by removing noise, step by step.

    x_{t+1} ~ p(x | x_{t-3..t}, a_{t-3..t})        reward, continuation ~ p(. | features of x_{t-3..t}, a_{t-4..t-1})

Both kinds differ in the field F that removes the noise (`objectives.edm`) and in how it is trained and followed.

Frames are rounded to bytes, so that of what an actor or a planner changes, only the actions in the window have a
gradient: with frames, take `actor_critic.gradient=reinforce` and planners without gradients. Features are what reward
and continuation need, and nothing else.
"""

from abc import abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae.likelihoods import BernoulliLikelihood, ScalarGaussianLikelihood
from worldvae.models.frame_trunk import FrameTrunk
from worldvae.models.frame_units import FrameUnits
from worldvae.models.kind_sections import NextFrameConfig
from worldvae.models.parts import WorldModelConfig, make_reward
from worldvae.models.pixel_state import PixelState, Window, windows
from worldvae.models.step_model import StepModel
from worldvae.models.world_model import Loss, Observed
from worldvae.networks import MLP
from worldvae.networks.moving_average import MovingAverage
from worldvae.networks.unet import Known, PatchUNet
from worldvae.networks.vector_field import VectorField
from worldvae.objectives import ELBOConfig
from worldvae.objectives.edm import NoiseLaw, denoised, edm_loss
from worldvae.objectives.probability_ode import Denoise
from worldvae.types import ActionLayout, Batch, Modality, Observation, ObservationLayout, State

CHUNK = 128
"""Frames that are imagined at once: more need memory, and are not faster."""

SHOWN_SIGMA = 1 / 255
"""Standard deviation of `decode`, in units of 0..1 or of standardised vectors: a state holds its frame exactly."""


class NextFrameModel(StepModel):
    """Base of both kinds. Frames of the environment are bytes in the state, vectors standardised floats.

    Args:
        observation: what the environment shows: frames or a vector.
        action: shape of the action vector.
        config: sizes; the section of the kind holds its own numbers.
        objective: weights of the terms of reward and continuation.

    Attributes:
        network: the network that learns to remove noise.
        average: the moving average of its weights, which imagines.
        steps: denoising steps of an imagined frame: the config's, unless set to another number; None: not so drawn.

    Raises:
        ValueError: If the environment shows frames and a vector.
    """

    def __init__(
        self,
        observation: ObservationLayout,
        action: ActionLayout,
        config: WorldModelConfig | None = None,
        objective: ELBOConfig | None = None,
    ) -> None:
        config = config or WorldModelConfig()
        super().__init__(observation, action, config)
        self.objective = objective or ELBOConfig()
        self.units = FrameUnits(observation, config.vector_symlog)
        numbers = self.numbers
        self.steps: int | None = numbers.steps
        self.law = NoiseLaw(numbers.log_sigma_mean, numbers.log_sigma_std, numbers.sigma_min, numbers.sigma_max)
        self.network: PatchUNet | VectorField
        if observation.pixels is not None:
            self.network = PatchUNet(observation.pixels, numbers.context, action.size, numbers.widths)
        else:
            self.network = VectorField(self.units.entries, numbers.context, action.size, numbers.widths[0])
        self.average = MovingAverage(self.network, numbers.average)
        self.trunk = FrameTrunk(observation, numbers.context, action.size, config)
        features, hidden, layers = self.feature_size, config.resolve("hidden"), config.resolve("layers")
        self.reward_head = make_reward(config, features)
        self.continuation_head = BernoulliLikelihood(MLP(features, hidden, layers, 1, kind=config.perceptron_kind))

    @property
    @abstractmethod
    def numbers(self) -> NextFrameConfig:
        """The section of this kind."""

    @abstractmethod
    def field(
        self, network: nn.Module, u: Float[Tensor, "batch entry"], level: Float[Tensor, " batch"], known: Known
    ) -> Float[Tensor, "batch entry"]:
        """Return F(u, level) of `objectives.edm`."""

    @abstractmethod
    def sample(
        self, denoise: Denoise, known: Known, noise: Float[Tensor, "batch noise"]
    ) -> Float[Tensor, "batch entry"]:
        """Return next frames, in denoised units, made of noise.

        Args:
            denoise: D(x, sigma) by the average of the weights.
            known: what the network knows of the context.
            noise: a row of `noise` for each frame.
        """

    @property
    def noise_size(self) -> int:
        """Random numbers of an imagined step."""
        return self.units.entries

    @property
    def mode_sigma(self) -> float:
        """The noise at which the mode is computed."""
        return self.numbers.sigma_max

    @property
    def feature_size(self) -> int:
        """Length of `State.features`."""
        return self.trunk.out_features

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of imagined features is whole: it passes through vectors, but not through bytes."""
        return not self.units.pixels

    @property
    def shows(self) -> frozenset[Modality]:
        """The modality that the environment shows."""
        return frozenset({"pixels" if self.units.pixels else "vector"})

    @torch.no_grad()
    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Measure mean frame and spread of `observation` (any leading shape), and the scale of a Gaussian reward."""
        self.units.calibrate(observation)
        if self.units.pixels:
            self.trunk.centre((self.units.centre + 1) / 2)
        if reward is not None and isinstance(self.reward_head, ScalarGaussianLikelihood):
            spread = reward.std(correction=0)
            self.reward_head.offset.copy_(reward.mean())
            self.reward_head.scale.copy_(torch.where(spread > 1e-6, spread.clamp(min=1e-2), 1.0))

    def _state(self, window: Window) -> PixelState:
        seen = torch.ones(window.frames.shape[:-2], dtype=torch.bool, device=window.device)
        return PixelState(window, self.trunk(window), seen)

    def initial(self, batch: int) -> PixelState:
        """Return the state in which nothing has been seen: the mean frame, and no actions."""
        context, size = self.numbers.context, self.action_layout.size
        actions = torch.zeros(batch, context, size, device=self.device)
        state = self._state(Window(self.units.empty(batch, context).clone(), actions))
        return replace(state, seen=torch.zeros_like(state.seen))

    def encode(self, observation: Observation) -> Float[Tensor, "*batch embedding"]:
        """Return the features of an episode that begins with this observation."""
        frames = self.units.stored(observation).unsqueeze(-2)
        frames = frames.expand(*frames.shape[:-2], self.numbers.context, -1)
        actions = torch.zeros(*frames.shape[:-1], self.action_layout.size, device=frames.device)
        features: Tensor = self.trunk(Window(frames, actions))
        return features

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Observed:
        """Return the last frames of every row; nothing is drawn. See `WorldModel.observe` for the arguments."""
        before = self.initial(len(batch.reward)) if state is None else PixelState.of(state)
        if action is None:
            action = torch.zeros_like(batch.action[:, 0])
        arriving = torch.cat([action.unsqueeze(1), batch.action[:, :-1]], dim=1)
        found = windows(before, self.units.stored(batch.observation), arriving, batch.is_first)
        return Observed(self._state(found))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw the noise that each imagined frame is made of."""
        return torch.randn(*shape, self.noise_size, device=self.device, generator=generator)

    def step(
        self, state: State, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None
    ) -> PixelState:
        """Imagine one frame; see `next_frames`."""
        window = PixelState.of(state).window
        return self._state(window.moved(self.next_frames(window, action, noise), action))

    def next_frames(
        self, window: Window, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None
    ) -> Shaped[Tensor, "batch entry"]:
        """Return the frames, as they are stored, that follow after `action`.

        Without noise, in the mode, it is D at `sigma_max`, one step from noise to data: nearly the mean of all next
        frames, and blurred where they differ. It is computed at the noise 0. (The flow that starts at the noise 0 is
        not the mean: it ends at one of the possible frames.)

        Frames are rounded to bytes, and no gradient passes; through vectors it does.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.units.pixels):
            parts = []
            for k in range(0, len(action), CHUNK):
                rows = slice(k, k + CHUNK)
                draw = None if noise is None else noise[rows].float()
                parts.append(self._next(window[rows], action[rows], draw))
            return torch.cat(parts)

    def _next(self, window: Window, action: Tensor, noise: Tensor | None) -> Tensor:
        network = self.average.network
        clear = torch.zeros(len(action), device=action.device)
        known = self.look(network, self.units.to_denoised(window.frames), window.then(action), clear)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self._denoised(network, x, torch.full_like(clear, sigma), known)

        if noise is None:
            start = torch.zeros(len(action), self.units.entries, device=action.device)
            return self.units.to_stored(denoise(start, self.mode_sigma))
        return self.units.to_stored(self.sample(denoise, known, noise))

    def look(self, network: nn.Module, frames: Tensor, actions: Tensor, corruption: Tensor) -> Known:
        """Return what the network knows of frames (in denoised units), and the actions taken at them."""
        assert isinstance(network, PatchUNet | VectorField)
        with self.autocast():
            return network.look(frames, actions, corruption)

    def _denoised(self, network: nn.Module, x: Tensor, sigma: Tensor, known: Known) -> Tensor:
        def field(u: Tensor, level: Tensor) -> Tensor:
            return self.field(network, u, level, known)

        return denoised(field, x, sigma, self.units.spread)

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        """Return a narrow Gaussian around the last frame in 0..1, or around the last vector (symlog, if chosen)."""
        frames = self.units.decoded(PixelState.of(states).last)
        sigma = SHOWN_SIGMA * torch.ones((), device=frames.device)
        scale = sigma if self.units.pixels else sigma * self.units.scale
        return Independent(
            Normal(frames, scale.expand_as(frames), validate_args=False), len(self.units.shape), validate_args=False
        )

    def in_shown_units(
        self, states: State, observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the observation and the last frame of states: in 0..1, or as standardised vectors."""
        return self.units.shown(self.units.stored(observation)), self.units.shown(PixelState.of(states).last)

    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the last frames themselves."""
        return self.units.shown(PixelState.of(states).last)

    def updated(self) -> None:
        """Move the average of the weights."""
        self.average.follow(self.network)

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        """Return the loss of the network on some frames, and of reward and continuation on all, in nats per row.

        Frames with which an episode begins are not predicted. On a share of the frames, reward and continuation also
        learn from what the model imagines in their place.
        """
        numbers, objective = self.numbers, self.objective
        states = PixelState.of(self.observe(batch).posterior)
        nats = self._nats(states, batch.reward, batch.termination)
        places = (~batch.is_first[:, 1:]).flatten().nonzero().squeeze(-1)
        order = torch.randperm(len(places), generator=generator, device=places.device)
        rows, times = _row_and_time(places[order[: numbers.frames]], batch.is_first.shape[1] - 1)
        metrics: dict[str, Tensor] = {}
        value = nats.new_zeros(())
        if len(rows):
            window, action = states.window[rows, times], batch.action[rows, times]
            value, metrics = self.frame_loss(window, action, states.last[rows, times + 1], generator)
        imagined = round(numbers.generated * len(rows))
        if imagined:
            window, action = window[:imagined], action[:imagined]
            with torch.no_grad():
                frames = self.next_frames(window, action, self.noise((imagined,), generator))
            there = rows[:imagined], times[:imagined] + 1
            after = self._state(window.moved(frames.detach(), action))
            generated = self._nats(after, batch.reward[there], batch.termination[there])
            metrics |= {"generated_reward_nats": generated[0].detach()}
            nats = torch.lerp(nats, generated, numbers.generated)
        metrics |= {"reward_nats": nats[0].detach(), "continuation_nats": nats[1].detach()}
        value = value + objective.reward * nats[0] + objective.continuation * nats[1]
        return Loss(value, states.detach(), metrics)

    def _nats(self, states: PixelState, reward: Tensor, termination: Tensor) -> Float[Tensor, "2"]:
        """Return the mean costs of reward and continuation."""
        costs = (
            self.reward(states).log_prob(reward).mean(),
            self.continuation(states).log_prob((~termination).float()).mean(),
        )
        return -torch.stack(costs)

    def frame_loss(
        self,
        window: Window,
        action: Float[Tensor, "batch action"],
        target: Shaped[Tensor, "batch entry"],
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of predicting the stored frame `target` after window and action, and metrics."""
        known = self.blurred(window, action, generator)
        clean = self.units.to_denoised(target)
        sigma = self.law.draw(len(clean), clean.device, generator)
        noise = torch.randn(clean.shape, device=clean.device, generator=generator)

        def field(u: Tensor, level: Tensor) -> Tensor:
            return self.field(self.network, u, level, known)

        error = edm_loss(field, clean, noise, sigma, self.units.spread).mean()
        return error, {"denoising": error.detach()}

    def blurred(
        self, window: Window, action: Float[Tensor, "batch action"], generator: torch.Generator | None
    ) -> Known:
        """Return what the network that learns knows of the context, to which noise is added."""
        frames = self.units.to_denoised(window.frames)
        level = self.numbers.context_noise * torch.rand(len(frames), device=frames.device, generator=generator)
        frames = frames + level[:, None, None] * torch.randn(frames.shape, device=frames.device, generator=generator)
        return self.look(self.network, frames, window.then(action), level)


def _row_and_time(places: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the row and the time step of places in a flat `[batch, length]`."""
    return places // max(1, length), places % max(1, length)
