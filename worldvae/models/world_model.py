"""What a world model is to whoever acts on it, films it, measures it or trains it: a protocol, and what it returns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.posteriors import Posterior
from worldvae.priors import Prior
from worldvae.types import ActionLayout, Batch, Dream, Modality, Observation, ObservationLayout, State, TensorTree

Policy = Callable[[State], Float[Tensor, "batch action"]]


@dataclass(frozen=True)
class Observed(TensorTree):
    """What `observe` returns: the posterior state of every row, `[batch, time]`."""

    posterior: State


@dataclass(frozen=True)
class Loss:
    """What a model pays for a batch.

    Attributes:
        value: what an optimiser lowers.
        states: posterior states of the batch, `[batch, time]`, detached: a policy may learn in dreams from there.
        metrics: numbers to be logged, detached, by their names.
    """

    value: Float[Tensor, ""]
    states: State
    metrics: dict[str, Tensor]


@runtime_checkable
class WorldModel(Protocol):
    """Six verbs (`encode, observe, imagine, decode, reward, continuation`), `initial`, `loss` and `updated`.

    Agents, films, evaluation and training know nothing else of a world model.

    Attributes:
        observation_layout: shapes of what the environment shows.
        action_layout: shape of an action vector.
    """

    observation_layout: ObservationLayout
    action_layout: ActionLayout

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        ...

    @property
    def shows(self) -> frozenset[Modality]:
        """What `decode` can answer."""
        ...

    @property
    def feature_size(self) -> int:
        """Length of `State.features`."""
        ...

    @property
    def hidden(self) -> int:
        """Width of the perceptrons, which those of an actor and a critic have, too, unless told otherwise."""
        ...

    def autocast(self) -> torch.autocast:
        """Return the context in which whatever learns or acts beside the model computes in the model's precision."""
        ...

    @property
    def precision(self) -> str:
        """What convolutions and imagination compute in, "float32" or "bfloat16"."""
        ...

    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Set the units of an untrained model by its first data: observations of any leading shape, and rewards."""
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
        """Filter through rows of data: the posterior states of every row.

        Args:
            batch: rows `[batch, time]`; `batch.action[:, t]` is used for the transition into row t + 1.
            state: posterior of the row before the first one (default: `initial`).
            action: action taken in that row (default: zero).
            generator: source of randomness.
            mode: return the likeliest states instead of drawn ones.
        """
        ...

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw the randomness of `imagine`, for the shape (horizon, batch)."""
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
            noise: what `noise` has drawn beforehand.
            mode: follow what is likeliest instead of a draw.
            last_only: let `Dream.states` hold the last state alone, `[batch, 1]`, as whoever asks for rewards,
                continuations and the end of many dreams has no use for the others.
        """
        ...

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        """Return the distribution of what is seen in states; `.mean` is `[*batch, channel, height, width]` for frames.

        Args:
            states: any leading shape.
            modality: one of `shows`; default: pixels where the model shows them.
        """
        ...

    def reward(self, states: State) -> Distribution:
        """Return the distribution of the reward that arrives with a state."""
        ...

    def continuation(self, states: State) -> Distribution:
        """Return the Bernoulli of the episode going on after a state (1 - termination)."""
        ...

    def in_shown_units(
        self, states: State, observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return what was seen and what states decode to, in the same units: frames in 0..1, or standardised vectors.

        Args:
            states: `[*batch]`.
            observation: `[*batch]`, too.
        """
        ...

    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames of states that there are; where nothing is sharper, the mean of `decode`.

        Args:
            states: `[batch, *time]`.
            steps: strides from noise to a frame.
            generator: source of the noise, one frame for every element of the batch.
        """
        ...

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        """Return what the model pays for rows `[batch, time]`."""
        ...

    def updated(self) -> None:
        """Do what is to be done after a step of the optimiser, such as letting a slow copy follow."""
        ...

    # What torch gives to every module:

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return what the optimiser changes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all weights by their names."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take all weights from what `state_dict` has returned."""
        ...


@runtime_checkable
class Probabilistic(WorldModel, Protocol):
    """A world model whose states are a memory h and a latent z (`LatentState`), with p(z | h) and q(z | h, e).

    Attributes:
        prior: p(z | h).
        posterior: q(z | h, e).
    """

    prior: Prior
    posterior: Posterior

    def embed(self, rows: Batch) -> Float[Tensor, "batch time embedding"]:
        """Return e, what the posterior is given of rows `[batch, time]`; of what comes after a row, too, if it may."""
        ...

    def log_likelihood(self, states: State, observation: Observation) -> dict[Modality, Float[Tensor, "*batch"]]:
        """Return log p(x | h, z) in nats: of the frames and of the vectors that were observed.

        Args:
            states: any leading shape.
            observation: of that shape, or of one that can be broadcast to it.
        """
        ...
