"""Optimizers and learning-rate schedules.

AdamW: Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (2019). Muon: Jordan et al., "Muon: An
optimizer for hidden layers in neural networks" (2024), whose update is a momentum matrix with all its
singular values pushed towards 1. Warm-up, stable, decay: Hu et al., "MiniCPM" (2024).
"""

import math

import torch
from torch import nn

from minimind_edu.training.config import TrainConfig

WSD_DECAY_SHARE = 0.2  # of all steps, at the end


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of optimizer step ``step`` (counted from 0) out of ``total_steps``."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    if config.lr_schedule == "constant":
        return config.learning_rate
    floor = config.learning_rate * config.min_lr_ratio
    if config.lr_schedule == "wsd":
        decay_steps = max(1, int(total_steps * WSD_DECAY_SHARE))
        left = min(1.0, (total_steps - step) / decay_steps)
        return floor + (config.learning_rate - floor) * left
    done = (step - config.warmup_iters) / max(1, total_steps - config.warmup_iters)
    return floor + (config.learning_rate - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def parameter_groups(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Sort the trainable parameters by how they should be updated.

    Returns:
        ``hidden``: the matrices inside the layers; ``table``: embedding, output head and MoE routers, whose
        rows stand for single tokens or experts; ``vector``: norms and biases.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"hidden": [], "table": [], "vector": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            groups["vector"].append((name, parameter))
        elif any(part in name for part in ("embed", "lm_head", "mlp.gate.")):
            groups["table"].append((name, parameter))
        else:
            groups["hidden"].append((name, parameter))
    return groups


class OptimizerSet:
    """One or two torch optimizers that behave as one, with state kept by parameter name.

    With ``optimizer="muon"`` the matrices inside the layers go to ``torch.optim.Muon`` (update scaled so
    that AdamW's learning rates carry over) and everything else goes to AdamW.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        groups = parameter_groups(model)
        decayed, undecayed = list(groups["hidden"]), groups["table"] + groups["vector"]
        self.optimizers: list[torch.optim.Optimizer] = []
        # Muon takes matrices only; expert weights that a library stores stacked in 3-D stay with AdamW.
        matrices = [item for item in decayed if item[1].ndim == 2]
        if config.optimizer == "muon" and matrices:
            decayed = [item for item in decayed if item[1].ndim != 2]
            self.optimizers.append(
                torch.optim.Muon(
                    matrices,
                    lr=config.learning_rate,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        adam_groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        adam_groups = [group for group in adam_groups if group["params"]]
        if adam_groups:
            devices = {parameter.device.type for group in adam_groups for _, parameter in group["params"]}
            self.optimizers.append(
                torch.optim.AdamW(
                    adam_groups,
                    lr=config.learning_rate,
                    betas=(0.9, 0.95),
                    eps=1e-8,
                    fused=devices <= {"cpu", "cuda"},
                )
            )
        if not self.optimizers:
            raise ValueError("no parameter of the model requires a gradient: there is nothing to train")
        self._names = {parameter: name for name, parameter in model.named_parameters()}

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is trained."""
        return [
            p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]
        ]

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of every group."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The optimizers' memory as ``{"parameter name::key": tensor}``, ready for safetensors."""
        return {
            f"{self._names[parameter]}::{key}": torch.as_tensor(value)
            for optimizer in self.optimizers
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what ``state_tensors`` returned.

        Raises:
            KeyError: a tensor belongs to a parameter that is not trained here.
        """
        by_name: dict[str, dict[str, torch.Tensor]] = {}
        for full_name, tensor in tensors.items():
            name, key = full_name.split("::")
            by_name.setdefault(name, {})[key] = tensor
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    state = by_name.pop(self._names[parameter], {})
                    # A copy on the parameter's device, where fused AdamW wants its step count too.
                    optimizer.state[parameter] = {
                        key: value.to(parameter.device, copy=True) for key, value in state.items()
                    }
        if by_name:
            raise KeyError(f"optimizer state for unknown parameters: {', '.join(sorted(by_name))}")
