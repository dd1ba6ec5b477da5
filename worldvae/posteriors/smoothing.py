"""A backward pass that lets a posterior read later rows: it turns a filter into a smoother."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Smoother(nn.Module):
    """Adds information about the rest of the episode to every embedding.

    Backwards over time, b_t = GRU(b_{t+1}, [e_t, a_t]), with b_{t+1} = 0 and a_t = 0 if row t + 1 begins an episode
    or does not exist,

        e'_t = e_t + W b_t,        W = 0 initially,

    so that q(z_t | h_t, e'_t) depends on z_{t-1} and a_{t-1}, through h_t, and on x_{t:T} and a_{t:T-1}, like the exact
    posterior (what x_{t+1} says of z_t depends on the action between them). A posterior that reads e_t alone has to
    ignore the future, and no training removes the cost of that (`worldvae.exact` computes it for linear-Gaussian
    worlds). It is for training and diagnosis only: an agent cannot read the future. An untrained smoother changes
    nothing.

    Args:
        embedding: length of e.
        action: length of the action vector.
        hidden: length of b.

    Reference: Krishnan et al. 2017, "Structured Inference Networks for Nonlinear State Space Models", section 4 (the
    "DKS" network); Bayer et al. 2021, "Mind the Gap when Conditioning Amortised Inference", on the gap it closes.
    """

    def __init__(self, embedding: int, action: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.project = nn.Linear(embedding + action, 3 * hidden)  # the cell's input weights, for all rows at once
        self.recur = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, embedding)
        nn.init.orthogonal_(self.recur.weight)
        nn.init.zeros_(self.recur.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        embedding: Float[Tensor, "batch time embedding"],
        action: Float[Tensor, "batch time action"],
        is_first: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time embedding"]:
        """Return e', in the type of e; row t reads rows t .. T of its own episode, but not the action taken at T."""
        # Row t continues from row t + 1 unless that row begins an episode; what follows the last row is unknown.
        goes_on = F.pad(~is_first[:, 1:], (0, 1), value=False).unsqueeze(-1)
        led = torch.where(goes_on, action, torch.zeros_like(action)).to(embedding.dtype)
        projected = self.project(torch.cat([embedding, led], dim=-1))
        backward = projected.new_zeros(embedding.shape[0], self.hidden)
        out = []
        for t in reversed(range(embedding.shape[1])):
            # Select, do not multiply by 0: that would let a NaN of the next episode through.
            backward = torch.where(goes_on[:, t], backward, torch.zeros_like(backward))
            backward = self._cell(projected[:, t], backward)
            out.append(backward)
        found: Tensor = self.out(torch.stack(out[::-1], dim=1))
        return embedding + found.to(embedding.dtype)

    def _cell(
        self, projected: Float[Tensor, "batch gates"], backward: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch hidden"]:
        """Return the next memory of torch's gated recurrent unit, given the projected input."""
        reset, update, candidate = projected.chunk(3, dim=-1)
        recurrent_reset, recurrent_update, recurrent = self.recur(backward).chunk(3, dim=-1)
        proposed = torch.tanh(candidate + torch.sigmoid(reset + recurrent_reset) * recurrent)
        return torch.lerp(proposed, backward, torch.sigmoid(update + recurrent_update))
