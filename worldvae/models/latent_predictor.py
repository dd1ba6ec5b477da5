"""Predictors of the next latent: from this latent and the action, with a memory or without."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory import GRUMemory, LatentState
from worldvae.networks import JointMLP, PerceptronKind, perceptron


class LatentPredictor(nn.Module, ABC):
    """z' = z + f(z, a), or z + f(h') with a memory h' = g(h, z, a); f is 0 at first, which predicts no change.

    Attributes:
        memory_size: length of h (0: there is none).
    """

    memory_size: int

    @abstractmethod
    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of a step that depends on the action only, for all time steps at once."""

    @abstractmethod
    def remember(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch memory"] | None:
        """Return h' for `projected = project(action)`; None without a memory."""

    @abstractmethod
    def predict(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch latent"]:
        """Return z', given z and h' = `remember(...)`."""


class ResidualPredictor(LatentPredictor):
    """z' = z + mlp[z, a].

    The last layer is linear: no norm fixes the length of z'.

    Args:
        latent: length of z.
        action: length of the action vector.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        kind: kind of the perceptron.
    """

    memory_size = 0

    def __init__(self, latent: int, action: int, hidden: int, layers: int = 2, kind: PerceptronKind = "normed") -> None:
        super().__init__()
        self.mix = JointMLP(latent, action, hidden, layers, kind=kind)
        self.change = nn.Linear(hidden, latent)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of the first layer that depends on the action only."""
        out: Tensor = self.mix.project(action)
        return out

    def remember(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> None:
        """There is no memory."""

    def predict(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch latent"]:
        """Return z'."""
        out: Tensor = latent + self.change(self.mix(latent, projected))
        return out


class RecurrentPredictor(LatentPredictor):
    """h' = GRU(h, mlp[z, a]),  z' = z + mlp(h'): for worlds of which an observation shows only a part.

    Args:
        latent: length of z.
        action: length of the action vector.
        memory: length of h.
        hidden: width of the hidden layers.
        kind: kind of the perceptrons.
    """

    def __init__(self, latent: int, action: int, memory: int, hidden: int, kind: PerceptronKind = "normed") -> None:
        super().__init__()
        self.memory_size = memory
        self.recur = GRUMemory(latent, action, memory, hidden, kind)
        self.change = perceptron(memory, hidden, 1, latent, zero=True, kind=kind)

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of the GRU's input layer that depends on the action only."""
        return self.recur.project(action)

    def remember(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch memory"]:
        """Return h'."""
        assert memory is not None, "a recurrent predictor needs the memory of the state"
        return self.recur.advance(LatentState(memory, latent), projected)[0].float()

    def predict(
        self,
        latent: Float[Tensor, "batch latent"],
        memory: Float[Tensor, "batch memory"] | None,
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch latent"]:
        """Return z'."""
        assert memory is not None, "a recurrent predictor needs the memory of the state"
        out: Tensor = latent + self.change(memory)
        return out
