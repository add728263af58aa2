"""Feed-forward layers: SwiGLU, and a mixture of such experts with a learned router."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.config import ModelConfig


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer, 2020, arXiv:2002.05202, equation 6, without biases)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MoEFeedForward(nn.Module):
    """A router sends each token to its top-k experts and adds up their weighted outputs.

    Shazeer et al., 2017 (arXiv:1701.06538); shared experts after DeepSeekMoE (arXiv:2401.06066).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = (config.hidden_size, config.moe_intermediate_size)
        self.top_k = config.num_experts_per_tok
        self.normalise = config.norm_topk_prob
        self.aux_coef = config.router_aux_loss_coef
        self.aux_per_sequence = config.seq_aux
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(*sizes) for _ in range(config.num_experts))
        if config.num_shared_experts:
            self.shared_experts = nn.ModuleList(FeedForward(*sizes) for _ in range(config.num_shared_experts))
        else:
            self.shared_experts = ()

    def forward(self, x: Tensor, is_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Route the tokens of x (B, T, C).

        Args:
            x: (B, T, C).
            is_token: (B, T) bool; padding (False) does not count in the balance.

        Returns:
            The output (B, T, C), and the auxiliary loss of this layer, a scalar.
        """
        flat = x.reshape(-1, x.shape[-1])
        # The softmax runs in float32 under autocast too: routing weights need more than 8 bits.
        probabilities = F.softmax(self.gate(flat), dim=-1, dtype=torch.float32)
        weights, chosen = torch.topk(probabilities, self.top_k, dim=-1)
        if self.normalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        output = self._run_experts(flat, weights, chosen).view_as(x)
        for expert in self.shared_experts:
            output = output + expert(x)
        return output, self._aux_loss(probabilities, chosen, x.shape[0], is_token)

    def _run_experts(self, flat: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Sort the (token, expert) pairs by expert, so that each expert runs once on one contiguous block.

        An expert without tokens runs on an empty block: its gradient is zero rather than missing.

        Args:
            flat: (N, C) tokens.
            weights, chosen: (N, k) routing weights and expert indices.
        """
        order = chosen.flatten().argsort(stable=True)
        token = order // self.top_k
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        blocks = flat[token].split(counts)
        outputs = torch.cat([expert(block) for expert, block in zip(self.experts, blocks, strict=True)])
        outputs = outputs * weights.flatten()[order, None].to(outputs.dtype)
        return torch.zeros_like(flat, dtype=outputs.dtype).index_add_(0, token, outputs)

    def _aux_loss(self, probabilities: Tensor, chosen: Tensor, batch: int, is_token: Tensor | None) -> Tensor:
        """The load-balancing loss, smallest where every expert gets the same share of the tokens.

        Over the batch (MiniMind-3, Switch: arXiv:2101.03961, equation 4): coef * E * sum_e f_e P_e with f_e
        the number of tokens that chose e over N, and P_e the mean router probability. Per sequence
        (MiniMind2, DeepSeek): the same within each sequence, with f_e also divided by k, then the mean over
        sequences.
        """
        experts = len(self.experts)
        groups = batch if self.aux_per_sequence else 1
        picked = F.one_hot(chosen, experts).sum(dim=1).float()
        if is_token is not None:
            keep = is_token.reshape(-1, 1).float()
            picked, probabilities, ones = picked * keep, probabilities * keep, keep
        else:
            ones = torch.ones_like(probabilities[:, :1])
        tokens = ones.view(groups, -1).sum(dim=1, keepdim=True).clamp(min=1)
        frequency = picked.view(groups, -1, experts).sum(dim=1) / tokens
        mean_probability = probabilities.view(groups, -1, experts).sum(dim=1) / tokens
        balance = experts * (frequency * mean_probability).sum(dim=-1).mean()
        return self.aux_coef * (balance / self.top_k if self.aux_per_sequence else balance)
