"""The flow posterior: a flexible q(z | h, e) that is still sampled in one pass."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from zuko.distributions import DiagNormal
from zuko.flows import ElementWiseTransform, GeneralCouplingTransform
from zuko.lazy import Flow, UnconditionalDistribution
from zuko.transforms import CouplingTransform

from worldvae.posteriors.amortised import AmortisedPosterior


class FlowFamily(nn.Module):
    """A distribution family whose parameters are the context c of a flow: z = m(c) + s(c) f_1(f_2(... noise; c); c).

    Each f is an affine coupling: a perceptron reads one half of the vector and c, and predicts a shift and a scale for
    the other half. A sample and a log-density then cost one pass each, while the inverse of an autoregressive flow
    costs a pass per dimension. The couplings' last layers are initially zero: an untrained flow is a diagonal Gaussian.

    Args:
        latent: length of z.
        context: length of c.
        hidden: width of the hidden layer of each coupling.
        transforms: number of couplings; each changes half of z.

    Reference: Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows"; Dinh et al. 2017, "Density
    estimation using Real NVP", section 3.
    """

    def __init__(self, latent: int, context: int, hidden: int, transforms: int = 4) -> None:
        super().__init__()
        if transforms < 0:
            raise ValueError(f"transforms={transforms} is not a number of couplings: take 0 (a Gaussian) or more")
        self.latent_size, self.parameter_size, self.transforms = latent, context, transforms
        couplings = transforms if latent > 1 else 0  # a single number has no halves
        affine = ElementWiseTransform(latent, context, hidden_features=())
        affine.hyper[-1].bias.data[1::2] = 1.45  # (shift, scale) x latent: initial std 0.3, as in `GaussianFamily`
        layers = [affine]
        for i in range(couplings):
            mask = torch.arange(latent) % 2 == i % 2
            layer = GeneralCouplingTransform(latent, context, mask=mask, hidden_features=(hidden,), activation=nn.SiLU)
            nn.init.zeros_(layer.hyper[-1].weight)
            nn.init.zeros_(layer.hyper[-1].bias)
            layers.append(layer)
        zeros, ones = torch.zeros(latent), torch.ones(latent)
        self.flow = Flow(layers, UnconditionalDistribution(DiagNormal, zeros, ones, buffer=True))

    def __repr__(self) -> str:
        return f"FlowFamily(size={self.latent_size}, context={self.parameter_size}, transforms={self.transforms})"

    def forward(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return the flow at this context."""
        out: Distribution = self.flow(parameters)
        return out

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw standard normal noise."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the noise, transformed by the flow."""
        out: Tensor = self.flow(parameters).transform.inv(noise.to(parameters.dtype))
        return out

    def sample_and_log_prob(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return a sample and its log-density from one pass (zuko would run the perceptrons twice)."""
        flow = self.flow(parameters)
        latent = noise.to(parameters.dtype)
        log_prob: Tensor = flow.base.log_prob(latent)
        for transform in reversed(flow.transform.transforms):
            if isinstance(transform, CouplingTransform):
                kept, moved = transform.split(latent)
                inner = transform.meta(kept)
                before = inner.inv(moved)
                log_prob = log_prob + inner.log_abs_det_jacobian(before, moved)
                latent = transform.merge(kept, before, latent.shape)
            else:
                before = transform.inv(latent)
                log_prob = log_prob + transform.log_abs_det_jacobian(before, latent)
                latent = before
        return latent, log_prob

    def mode(self, parameters: Float[Tensor, "*batch parameter"]) -> Float[Tensor, "*batch latent"]:
        """Return the sample for noise 0: typical, and the mode itself if the flow is affine in the noise."""
        return self.sample(parameters, parameters.new_zeros(*parameters.shape[:-1], self.latent_size))


class FlowPosterior(AmortisedPosterior):
    """q(z | h, e) = flow(z; c); `infer` returns the context c = mlp[h, e] as the parameters of q.

    The KL to a prior has no closed form: it is estimated at a sample.

    Args:
        memory: length of h.
        embedding: length of the encoder's embedding e.
        latent: length of z.
        hidden: width of every hidden layer, and length of the context.
        transforms: number of couplings.

    Reference: Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", section 4.2.
    """

    estimates_kl = True
    family: FlowFamily

    def __init__(self, memory: int, embedding: int, latent: int, hidden: int, transforms: int = 4) -> None:
        super().__init__(memory, embedding, FlowFamily(latent, hidden, hidden, transforms), hidden)

    def extra_repr(self) -> str:
        """Return nothing: `print` shows the family anyway, because it is a module."""
        return ""

    def sample_and_log_prob(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return a sample of q and its log-density, from one pass."""
        return self.family.sample_and_log_prob(parameters, noise)
