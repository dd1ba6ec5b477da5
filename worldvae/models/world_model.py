"""The protocol of a world model, which is all that agents, films, evaluation and training use, and its results."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.types import ActionLayout, Batch, Dream, Modality, Observation, ObservationLayout, State, TensorTree

Policy = Callable[[State], Float[Tensor, "batch action"]]


@dataclass(frozen=True)
class Observed(TensorTree):
    """The result of `observe`: the posterior state of every row, `[batch, time]`."""

    posterior: State


@dataclass(frozen=True)
class Loss:
    """The loss of a model on a batch.

    Attributes:
        value: the scalar to minimise.
        states: posterior states of the batch, `[batch, time]`, detached: dreams may start there to train a policy.
        metrics: numbers to log, detached, by name.
    """

    value: Float[Tensor, ""]
    states: State
    metrics: dict[str, Tensor]


@runtime_checkable
class WorldModel(Protocol):
    """Six verbs (`encode, observe, imagine, decode, reward, continuation`), `initial`, `loss` and `updated`.

    Agents, films, evaluation and training use nothing else of a world model.

    Attributes:
        observation_layout: shapes of what the environment shows.
        action_layout: shape of an action vector.
    """

    observation_layout: ObservationLayout
    action_layout: ActionLayout

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        ...

    @property
    def shows(self) -> frozenset[Modality]:
        """The modalities that `decode` accepts."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of imagined features with respect to all earlier actions is whole."""
        ...

    @property
    def feature_size(self) -> int:
        """Length of `State.features`."""
        ...

    @property
    def hidden(self) -> int:
        """Width of the hidden layers of the perceptrons; actor and critic use it, too, unless configured otherwise."""
        ...

    def autocast(self) -> torch.autocast:
        """Return the context in which code that learns or acts beside the model computes in the model's precision."""
        ...

    @property
    def precision(self) -> str:
        """What convolutions and imagination compute in: "float32" or "bfloat16"."""
        ...

    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Set the units of an untrained model from its first data: observations of any leading shape, and rewards."""
        ...

    def initial(self, batch: int) -> State:
        """Return the state from which every episode starts, `[batch]`."""
        ...

    def encode(self, observation: Observation) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (uint8 0..255 or float 0..1) and vectors into one embedding."""
        ...

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Observed:
        """Filter through rows of data: return the posterior state of every row.

        Args:
            batch: rows `[batch, time]`; `batch.action[:, t]` is used for the transition into row t + 1.
            state: posterior of the row before the first one (default: `initial`).
            action: action taken in that row (default: zero).
            generator: source of randomness.
            mode: return the likeliest states instead of drawn ones.
        """
        ...

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `imagine` needs, for the shape (horizon, batch)."""
        ...

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
        """Roll forward from `start`, with given actions or with a policy.

        Args:
            start: states `[batch]`.
            actions: actions `[batch, horizon, action]`, or a function from states `[batch]` to actions.
            horizon: number of steps; needed with a policy.
            generator: source of randomness.
            noise: result of an earlier call of `noise`; default: drawn from `generator`.
            mode: follow the likeliest states instead of drawn ones.
            last_only: keep only the last state in `Dream.states`, `[batch, 1]`: it saves memory where rewards,
                continuations and final states suffice, as in planning.
        """
        ...

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        """Return the distribution of observations in states; `.mean` is `[*batch, channel, height, width]` for frames.

        Args:
            states: any leading shape.
            modality: one of `shows`; default: pixels if the model shows them.
        """
        ...

    def reward(self, states: State) -> Distribution:
        """Return the distribution of the reward that arrives with a state."""
        ...

    def continuation(self, states: State) -> Distribution:
        """Return the Bernoulli distribution of the episode continuing after a state (1 - termination)."""
        ...

    def in_shown_units(
        self, states: State, observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the observation and what states decode to, in the same units: frames in 0..1, or standardised vectors.

        Args:
            states: `[*batch]`.
            observation: `[*batch]`, too.
        """
        ...

    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames of states that the model can draw: the mean of `decode` if it has no better way.

        Args:
            states: `[batch, *time]`.
            steps: denoising steps from noise to a frame.
            generator: source of the noise, one noise frame per element of the batch.
        """
        ...

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        """Return the loss of the model on rows `[batch, time]`."""
        ...

    def updated(self) -> None:
        """Do what must follow a step of the optimiser, such as moving a slow copy of the weights."""
        ...

    # Methods of every torch module:

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return the parameters that the optimiser changes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all weights by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights that `state_dict` returned."""
        ...
