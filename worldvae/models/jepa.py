"""A joint-embedding predictive world model: it predicts latents of observations, and never observations themselves.

    z_t = projector(encoder(x_t))        z'_{t+1} = predictor(z_t, a_t)        loss: |z' - z|^2, and no collapse of z

Heads of reward and continuation, and a decoder for films, read z and do not change it.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from worldvae.errors import UserError
from worldvae.likelihoods import BernoulliLikelihood, ScalarGaussianLikelihood
from worldvae.models.frame_stack import as_bytes, repeated, stacked, whole
from worldvae.models.jepa_state import JEPAState
from worldvae.models.latent_predictor import LatentPredictor, RecurrentPredictor, ResidualPredictor
from worldvae.models.latent_regulariser import LatentRegulariser
from worldvae.models.latent_rollout import RollOut, roll_out
from worldvae.models.parts import WorldModelConfig, make_reward
from worldvae.models.senses import Senses
from worldvae.models.step_model import StepModel
from worldvae.models.world_model import Loss, Observed, Policy
from worldvae.networks import MLP, perceptron
from worldvae.networks.projector import Projector
from worldvae.objectives import ELBOConfig
from worldvae.objectives.latent_spread import latent_spread
from worldvae.types import ActionLayout, Batch, Dream, Modality, Observation, ObservationLayout, State


class JEPA(StepModel):
    """A joint-embedding predictive world model with the regulariser SIGReg, or VICReg and inverse dynamics.

    It is deterministic. z depends on an observation alone (with `jepa.stack` frames of it), not on a filter.

    `loss` normalises the encoder's projector over the batch, and everything else by running averages, whatever
    `module.training` says.

    Args:
        observation: what the environment shows.
        action: shape of the action vector.
        config: the sizes, and the section `jepa`.
        objective: its `reward`, `continuation` and `decode_steps` are used.

    References: LeCun 2022, "A Path Towards Autonomous Machine Intelligence"; Maes et al. 2026, "LeWorldModel" (SIGReg);
        Sobal et al. 2025, "Learning from Reward-Free Offline Data" (PLDM: VICReg, inverse dynamics, roll-outs).
    """

    def __init__(
        self,
        observation: ObservationLayout,
        action: ActionLayout,
        config: WorldModelConfig,
        objective: ELBOConfig | None = None,
    ) -> None:
        super().__init__(observation, action, config)
        self.objective, self.settings = objective or ELBOConfig(), config.jepa
        hidden, layers, kind = config.resolve("hidden"), config.resolve("layers"), config.perceptron_kind
        latent, self.stack = self.settings.latent, 1 if observation.pixels is None else self.settings.stack
        memory = config.resolve("memory_size") if self.settings.predictor == "gru" else 0
        self.senses = Senses(observation, memory + latent, config, stack=self.stack, decodes=self.settings.decoder)
        self.projector = Projector(self.senses.embedding_size, hidden, latent)
        self.predictor: LatentPredictor
        if self.settings.predictor == "gru":
            self.predictor = RecurrentPredictor(latent, action.size, memory, hidden, kind)
        else:
            self.predictor = ResidualPredictor(latent, action.size, hidden, max(1, layers), kind)
        inverse = perceptron(2 * latent, hidden, layers, action.size, kind=kind)
        self.regulariser = LatentRegulariser(self.settings, inverse)
        self.reward_head = make_reward(config, memory + latent)
        self.continuation_head = BernoulliLikelihood(MLP(memory + latent, hidden, layers, 1, kind=kind))

    @property
    def feature_size(self) -> int:
        """Length of `State.features`: of z, and of the memory if there is one."""
        return self.settings.latent + self.predictor.memory_size

    @property
    def shows(self) -> frozenset[Modality]:
        """The modalities that `decode` accepts: none without `jepa.decoder`."""
        return self.senses.shows

    def initial(self, batch: int) -> JEPAState:
        """Return the zero state, in which no frame has been seen."""
        zeros = torch.zeros(batch, self.feature_size, device=self.device)
        return JEPAState(zeros[:, : self.settings.latent], self._no_memory(batch))

    def _no_memory(self, batch: int) -> Float[Tensor, "batch memory"] | None:
        size = self.predictor.memory_size
        return torch.zeros(batch, size, device=self.device) if size else None

    @torch.no_grad()
    def calibrate(self, observation: Observation, reward: Float[Tensor, "*batch"] | None = None) -> None:
        """Set the units of vectors, the mean frame, and the averages of the projector's norm, from the first data.

        If `reward` is given, a Gaussian reward head is initialised to its mean and scale.
        """
        self.senses.calibrate(observation)
        self._embed(self._stacked_alone(observation), of_batch=True)
        if reward is not None and isinstance(self.reward_head, ScalarGaussianLikelihood):
            self.reward_head.offset.copy_(reward.mean())
            spread = reward.std(correction=0)
            self.reward_head.scale.copy_(torch.where(spread > 1e-6, spread.clamp(min=1e-2), 1.0))

    def encode(self, observation: Observation) -> Float[Tensor, "*batch latent"]:
        """Return z of observations, each seen as the first row of an episode: its frame fills the stack."""
        return self._embed(self._stacked_alone(observation))

    def _stacked_alone(self, observation: Observation) -> Observation:
        if observation.pixels is None or self.stack == 1:
            return observation
        return replace(observation, pixels=repeated(observation.pixels, self.stack))

    def _embed(self, observation: Observation, *, of_batch: bool = False) -> Float[Tensor, "*batch latent"]:
        """Return z of stacks; with the statistics of the batch, if the encoder learns from it."""
        if self.settings.frozen_encoder:
            with torch.no_grad():
                return self.projector(self.senses.encode(observation), of_batch)  # type: ignore[no-any-return]
        return self.projector(self.senses.encode(observation), of_batch)  # type: ignore[no-any-return]

    def _stacked(self, batch: Batch, previous: Tensor | None) -> tuple[Observation, Tensor | None]:
        """Return the rows' observations with stacks for frames, and the frames that the next row needs."""
        pixels = batch.observation.pixels
        if pixels is None or self.stack == 1:
            return batch.observation, None
        stacks = stacked(as_bytes(pixels), batch.is_first, self.stack, previous)
        return replace(batch.observation, pixels=stacks), stacks[:, :, pixels.shape[2] :]

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Observed:
        """Encode rows `[batch, time]`; a recurrent predictor also carries its memory along.

        See `WorldModel.observe` for the arguments. Nothing is drawn. The first row of an episode is stacked with
        itself, and so is the first row of all if `state` has no frames.
        """
        before = self.initial(len(batch.reward)) if state is None else JEPAState.of(state)
        stacks, frames = self._stacked(batch, before.frames)
        latent = self._embed(stacks)
        return Observed(JEPAState(latent, self._remember(latent, batch, before, action), frames))

    def _remember(
        self,
        latent: Float[Tensor, "batch time latent"],
        batch: Batch,
        before: JEPAState,
        action: Float[Tensor, "batch action"] | None,
    ) -> Float[Tensor, "batch time memory"] | None:
        """Return the memory of every row: of the rows before it and of the actions that led there."""
        memory, last = before.memory, before.latent
        if memory is None:
            return None
        action = torch.zeros_like(batch.action[:, 0]) if action is None else action
        previous = torch.cat([action.unsqueeze(1), batch.action[:, :-1]], dim=1)
        moves = self.predictor.project(previous * ~batch.is_first.unsqueeze(-1)).unbind(1)
        found = []
        for t, seen in enumerate(latent.unbind(1)):
            go_on = ~batch.is_first[:, t].unsqueeze(-1)
            memory = self.predictor.remember(last * go_on, memory * go_on, moves[t])
            assert memory is not None
            found.append(memory)
            last = seen
        return torch.stack(found, dim=1)

    def step(
        self, state: State, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None = None
    ) -> JEPAState:
        """Return the predicted state after one step, without frames."""
        now = JEPAState.of(state)
        with self.autocast():
            move = self.predictor.project(action)
            memory = self.predictor.remember(now.latent, now.memory, move)
            return JEPAState(self.predictor.predict(now.latent, memory, move), memory).float()

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
        """Predict latents from states `[batch]`; see `WorldModel.imagine` for the arguments.

        Imagined states share the frames of the state in which they began, the last that were seen.
        """
        seen = JEPAState.of(start)
        bare = replace(seen, frames=None)
        dream = super().imagine(bare, actions, horizon, generator, noise=noise, mode=mode, last_only=last_only)
        states = JEPAState.of(dream.states)
        if seen.frames is not None:  # (a view: nothing is copied)
            frames = seen.frames.unsqueeze(1).expand(-1, states.latent.shape[1], -1, -1, -1)
            states = replace(states, frames=frames)
        return replace(dream, start=seen, states=states)

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        """Return what the decoder makes of states (`Senses.decode`).

        Raises:
            UserError: If the model has no decoder.
        """
        if not self.shows:
            raise UserError("this JEPA has no decoder, and so nothing to show: train with model.jepa.decoder=true.")
        return self.senses.decode(states.features, modality)

    def in_shown_units(
        self, states: State, observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the observation and what states decode to, both as frames in 0..1 or as standardised vectors."""
        return self.senses.in_shown_units(states.features, observation)

    def render(
        self, states: State, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames that the decoder can give: rendered by a diffusion decoder, else its mean."""
        return self.senses.render(states.features, steps, generator)

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        """Return the loss of a batch: the error of predictions, the regulariser, and the nats of heads and decoder.

        The latter do not reach z: heads read z, and z as it was predicted, without its gradient.

        Metrics: `prediction` and `regulariser`; `error_over_copy_K`, the error of predictions K steps ahead divided by
        that of "nothing changes"; the spread of z (`latent_spread`); nats per row of reward and continuation, on z and
        (`..._rolled`) on predictions of it.
        """
        stacks, _ = self._stacked(batch, None)
        latent = self._embed(stacks, of_batch=not self.settings.frozen_encoder)
        known = whole(batch.is_first, self.stack)
        start = self.initial(len(latent))
        states = JEPAState(latent, self._remember(latent, batch, start, None))
        rolled = roll_out(self.step, states, batch.action, batch.is_first, known, self.settings.rollout)
        errors = rolled.errors(latent)
        prediction = errors.mean() if len(errors) else latent.sum() * 0
        rows = latent[known] if bool(known.any()) else latent.flatten(0, 1)
        joined = known[:, :-1] & ~batch.is_first[:, 1:]  # pairs of rows of one episode
        regulariser, metrics = self.regulariser(rows, latent, batch.action, joined, generator)
        head_loss, head_metrics = self._head_loss(batch, states, rolled)
        shown_loss, shown_metrics = self._shown_loss(batch, states, generator)
        metrics |= {"prediction": prediction, "regulariser": regulariser} | head_metrics | shown_metrics
        copied = rolled.copied(latent.detach())
        for k in sorted({1, len(errors)} if len(errors) else ()):
            metrics[f"error_over_copy_{k}"] = errors[k - 1] / copied[k - 1].clamp(min=1e-12)
        metrics = {name: value.detach() for name, value in metrics.items()} | latent_spread(rows.detach())
        return Loss(prediction + regulariser + head_loss + shown_loss, states.detach(), metrics)

    def _head_loss(
        self, batch: Batch, states: JEPAState, rolled: RollOut
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the weighted nats of rewards and continuations, given z and given predictions of z."""
        flat = [states.features.detach().flatten(0, 1)]
        flat += [state.features.detach().flatten(0, 1) for state in rolled.states]
        ahead = range(len(flat))
        reward = torch.cat([batch.reward[:, k:].flatten() for k in ahead])
        going = torch.cat([~batch.termination[:, k:].flatten() for k in ahead]).float()
        counts = torch.cat([torch.ones_like(batch.is_first).flatten(), *(valid.flatten() for valid in rolled.valid)])
        features, seen = torch.cat(flat), len(flat[0])
        nats = {
            "reward": -self.reward_head(features).log_prob(reward),
            "continuation": -self.continuation_head(features).log_prob(going),
        }
        metrics, total = dict[str, Tensor](), reward.new_zeros(())
        for name, weight in (("reward", self.objective.reward), ("continuation", self.objective.continuation)):
            metrics[f"{name}_nats"] = nats[name][:seen].mean()
            kept = torch.where(counts[seen:], nats[name][seen:], 0.0).sum()
            metrics[f"{name}_nats_rolled"] = kept / counts[seen:].sum().clamp(min=1)
            total = total + weight * (metrics[f"{name}_nats"] + metrics[f"{name}_nats_rolled"])
        return total, metrics

    def _shown_loss(
        self, batch: Batch, states: JEPAState, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the nats of observations per entry (so that they do not rule the gradient's norm), and per row."""
        total, metrics = batch.reward.new_zeros(()), dict[str, Tensor]()
        if not self.shows:
            return total, metrics
        features, observation = states.features.detach().flatten(0, 1), batch.observation.flatten()
        size, length = batch.reward.shape
        if 0 < self.objective.decode_steps < length:
            order = torch.randperm(size * length, generator=generator, device=features.device)
            picked = order[: size * self.objective.decode_steps]
            features, observation = features[picked], observation[picked]
        for name, found in self.senses.log_prob(features, observation).items():
            entries = getattr(observation, name)[0].numel()
            metrics["pixel_nats" if name == "pixels" else "vector_nats"] = -found.mean()
            total = total - found.mean() / entries
        return total, metrics
