"""An actor and a critic that learn in imagination, never from a real step."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.agents.agent import ModelAgent
from worldvae.agents.policy import ActionDistribution, Actor
from worldvae.config import setting
from worldvae.distributions import check_bins
from worldvae.likelihoods import TwoHotLikelihood
from worldvae.models.world_model import WorldModel
from worldvae.networks import MLP
from worldvae.networks.frozen import frozen
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.objectives import lambda_returns
from worldvae.planning import Plan
from worldvae.types import State


@dataclass(frozen=True)
class ActorCriticConfig:
    """Numbers of behaviour learning.

    Attributes:
        horizon: imagined steps.
        starts: posterior states per update from which dreams begin, drawn at random (0: all).
        discount: of future rewards, per decision.
        mix: lambda of the returns.
        entropy: weight of the policy's entropy, in units of the return's scale.
        gradient: "dynamics" differentiates the return through the model (box actions only), "reinforce" uses the
            likelihood ratio, "auto" takes dynamics where all actions are continuous and the model has that gradient.
        slow: rate at which the slow critic follows.
        slow_weight: weight of agreeing with the slow critic.
        scale_decay: decay of the running 5-95 % range of returns that scales the actor's loss.
        hidden: width of actor and critic (0: that of the model).
        layers: hidden layers of actor and critic.
        bins: of the critic's two-hot.
        optimiser: of actor and critic alike.
    """

    horizon: int = 15
    starts: int = 256
    discount: float = 0.985
    mix: float = 0.95
    entropy: float = 3e-3
    gradient: str = setting("auto", choices=["auto", "dynamics", "reinforce"])
    slow: float = 0.02
    slow_weight: float = 1.0
    scale_decay: float = 0.99
    hidden: int = 0
    layers: int = 2
    bins: int = 255
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=6e-4, final=0.1))

    def __post_init__(self) -> None:
        for name in ("discount", "mix", "slow", "scale_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        if self.scale_decay == 1:
            raise ValueError("scale_decay=1 would never look at a return; take a number below 1, such as 0.99")
        if self.horizon < 1 or self.layers < 1:
            raise ValueError(f"horizon={self.horizon} and layers={self.layers} must be at least 1")
        if self.starts < 0 or self.hidden < 0:
            raise ValueError(f"starts={self.starts} and hidden={self.hidden} cannot be negative")
        check_bins(self.bins)


class ActorCritic(nn.Module):
    """Learns a policy and a value from dreams of the world model.

    The critic regresses the lambda-return as a two-hot; the actor maximises the return, divided by the running range
    between its 5th and 95th percentile (never enlarged), plus entropy.

    Args:
        model: the world model the dreams come from; not a part of this module.
        config: numbers of behaviour learning.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", sections "Critic learning" and
    "Actor learning"; Hafner et al. 2020, "Dream to Control" for gradients through the dynamics.
    """

    scale: Tensor

    def __init__(self, model: WorldModel, config: ActorCriticConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ActorCriticConfig()
        self._model = [model]  # in a list, so that the world model's parameters are not counted as ours
        hidden = config.hidden or model.hidden
        layout = model.action_layout
        self.actor = Actor(model.feature_size, layout, hidden, config.layers)
        self.critic = TwoHotLikelihood(MLP(model.feature_size, hidden, config.layers, config.bins, zero=True))
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("scale", torch.zeros(()))
        continuous_only = not layout.categorical
        if config.gradient == "dynamics" and not continuous_only:
            raise ValueError(
                "actor_critic.gradient=dynamics needs continuous actions only, this environment has discrete ones; "
                "use actor_critic.gradient=auto or reinforce"
            )
        if config.gradient == "dynamics" and not model.differentiable:
            raise ValueError(
                "actor_critic.gradient=dynamics needs gradients through dreams, and those of a "
                f"{type(model).__name__} have none; use actor_critic.gradient=auto or reinforce"
            )
        possible = continuous_only and model.differentiable
        self.through_dynamics = possible if config.gradient == "auto" else config.gradient == "dynamics"
        self.actor_optimiser = Optimiser(self.actor.parameters(), config.optimiser, "actor_critic.optimiser")
        self.critic_optimiser = Optimiser(self.critic.parameters(), config.optimiser, "actor_critic.optimiser")

    def update(
        self, starts: State, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> dict[str, Tensor]:
        """Dream from `starts` (`[batch]`), then take one step of the actor and one of the critic.

        The step sizes are those for this share (`progress`, 0..1) of the run.

        Returns:
            Metrics: mean imagined return and value, entropy in nats, range of returns, and whether the actor took no
            step because its gradient was not finite.
        """
        config, model = self.config, self._model[0]
        if 0 < config.starts < starts.size:
            order = torch.randperm(starts.size, generator=generator, device=starts.device)
            starts = starts[order[: config.starts]]
        constants = [*model.parameters(), *self.critic.parameters()]
        with frozen(constants), torch.set_grad_enabled(self.through_dynamics):
            dream = model.imagine(starts, lambda s: self._policy(s).draw(generator), config.horizon, generator)
            states = State.cat([starts.map(lambda x: x.unsqueeze(1)), dream.states], dim=1)
            values = self.value(states)
            discounts = config.discount * dream.continuations
            returns = lambda_returns(dream.rewards, values[:, 1:], discounts, config.mix)
        weights = self._weights(discounts)
        scale = self._update_scale(returns.detach())
        features = states.features[:, :-1].detach()
        with model.autocast():
            policy = self.actor(features)
        if self.through_dynamics:
            objective = returns / scale
        else:
            advantage = (returns - values[:, :-1]) / scale
            objective = advantage * policy.log_prob(dream.actions)
        entropy = policy.entropy()
        actor_loss = -(weights * (objective + config.entropy * entropy)).mean()
        norm = self.actor_optimiser.step(actor_loss, progress)
        critic_loss = self._update_critic(features, returns.detach(), weights, progress)
        return {
            "actor/loss": actor_loss.detach(),
            "actor/entropy": entropy.detach().mean(),
            "actor/return_scale": scale,
            "actor/skipped": (~norm.isfinite()).float(),
            "critic/loss": critic_loss,
            "critic/imagined_return": returns.detach().mean(),
            "critic/value": values.detach().mean(),
            "critic/imagined_reward": dream.rewards.detach().mean(),
        }

    def value(self, state: State) -> Float[Tensor, "*batch"]:
        """Return the critic's value of states."""
        with self._model[0].autocast():
            out: Tensor = self.critic(state.features).mean
        return out

    def _policy(self, state: State) -> ActionDistribution:
        # The policy looks at a detached state: the gradient reaches it through its actions, not through its inputs.
        policy: ActionDistribution = self.actor(state.features.detach())
        return policy

    @staticmethod
    @torch.no_grad()
    def _weights(discounts: Float[Tensor, "batch horizon"]) -> Float[Tensor, "batch horizon"]:
        """Probability times discount with which a dream gets to each of its states 0 .. H - 1."""
        reached = torch.cumprod(discounts, dim=1)[:, :-1]
        return torch.cat([torch.ones_like(discounts[:, :1]), reached], dim=1)

    @torch.no_grad()
    def _update_scale(self, returns: Float[Tensor, "batch horizon"]) -> Float[Tensor, ""]:
        low, high = torch.quantile(returns.flatten(), torch.tensor([0.05, 0.95], device=returns.device))
        decay = self.config.scale_decay
        if bool(torch.isfinite(high - low)):  # else neither optimiser takes a step
            self.scale.mul_(decay).add_((1 - decay) * (high - low))
        corrected = self.scale / (1 - decay ** (self.actor_optimiser.updates + 1))
        out: Tensor = corrected.clamp(min=1.0)
        return out

    def _update_critic(self, features: Tensor, returns: Tensor, weights: Tensor, progress: float) -> Tensor:
        config = self.config
        with self._model[0].autocast():
            values = self.critic(features)
            with torch.no_grad():
                slow = self.slow_critic(features).mean
        loss: Tensor = -(weights * (values.log_prob(returns) + config.slow_weight * values.log_prob(slow))).mean()
        self.critic_optimiser.step(loss, progress)
        with torch.no_grad():
            for ours, theirs in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
                ours.lerp_(theirs, config.slow)
        return loss.detach()

    def is_sound(self, starts: State) -> bool:
        """Return whether an update from `starts` would have finite gradients; nothing is changed, and nothing drawn."""
        twin = copy.deepcopy(self)
        twin.update(starts, torch.Generator(starts.device).manual_seed(0))
        return twin._skipped() == self._skipped()

    def _skipped(self) -> int:
        return self.actor_optimiser.skipped + self.critic_optimiser.skipped

    def optimiser_state(self) -> dict[str, Any]:
        """Return the state of both optimisers."""
        return {"actor": self.actor_optimiser.state_dict(), "critic": self.critic_optimiser.state_dict()}

    def load_optimiser_state(self, state: dict[str, Any]) -> None:
        """Go on from `optimiser_state`."""
        self.actor_optimiser.load_state_dict(state["actor"])
        self.critic_optimiser.load_state_dict(state["critic"])


class ActorAgent(ModelAgent):
    """Acts by the learnt policy: its mode to score, a sample to explore."""

    name = "actor"

    def __init__(self, model: WorldModel, actor: Actor) -> None:
        super().__init__(model)
        self.actor = actor

    def decide(
        self,
        state: State,
        keep: Float[Tensor, "batch"],
        previous: Plan | None,
        generator: torch.Generator | None,
        explore: bool,
    ) -> tuple[Float[Tensor, "batch action"], Plan | None]:
        """Return the policy's actions."""
        policy: ActionDistribution = self.actor(state.features)
        return policy.draw(generator) if explore else policy.mode, None
