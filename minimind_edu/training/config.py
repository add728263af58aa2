"""The settings of one training run, shared by every stage and by the command line."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class TrainConfig:
    """How to train. Every stage's settings extend these.

    Args:
        out_dir: folder of the run: checkpoints, metrics.jsonl and the final model.
        epochs: passes over the training data.
        batch_size: rows of tokens in one forward pass.
        accumulation_steps: forward passes whose gradients are added up before the weights change.
        learning_rate: peak learning rate, reached after the warm-up.
        warmup_iters: steps over which the learning rate rises from 0 to its peak.
        lr_schedule: after the warm-up: half a cosine down to min_lr_ratio; or wsd (warm-up, stable, decay),
            constant until the last fifth of the steps, then a straight line down; or constant.
        min_lr_ratio: last learning rate as a share of the peak.
        optimizer: adamw; or muon for the matrices inside the layers, with AdamW for everything else.
        weight_decay: decoupled weight decay of the matrices (never of norms, biases and embeddings).
        grad_clip: largest allowed norm of the gradient; 0 turns clipping off.
        max_steps: stop after this many optimizer steps; 0 means that epochs decide.
        log_interval: steps between two lines of metrics.jsonl.
        save_interval: steps between two checkpoints; 0 means only the last.
        eval_interval: steps between two validation losses; 0 means only after the last step.
        keep_checkpoints: how many of the newest checkpoints to keep.
        dtype: auto, float32, bfloat16 or float16; auto is what is fastest and safe on the device.
        device: auto, cpu, cuda, cuda:1, mps.
        num_workers: processes that prepare batches.
        seed: seed of the initial weights, of the order of the data and of dropout.
        from_resume: 1 continues from the newest good checkpoint in out_dir, if there is one.
        overwrite: 1 deletes an earlier run in out_dir and starts anew.
        use_wandb: log to Weights & Biases (the same as --logger wandb).
        logger: a second place for the metrics.
    """

    out_dir: str = "out/run"
    epochs: int = 1
    batch_size: int = 32
    accumulation_steps: int = 1
    learning_rate: float = 4e-3
    warmup_iters: int = 20
    lr_schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    min_lr_ratio: float = 0.1
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    max_steps: int = 0
    log_interval: int = 10
    save_interval: int = 100
    eval_interval: int = 0
    keep_checkpoints: int = 2
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    num_workers: int = 0
    seed: int = 42
    from_resume: int = 0
    overwrite: int = 0
    use_wandb: bool = False
    logger: Literal["none", "tensorboard", "wandb", "swanlab"] = "none"

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        at_least = {
            "epochs": 1, "batch_size": 1, "accumulation_steps": 1, "warmup_iters": 0, "weight_decay": 0,
            "grad_clip": 0, "max_steps": 0, "log_interval": 1, "save_interval": 0, "eval_interval": 0,
            "keep_checkpoints": 1, "num_workers": 0, "min_lr_ratio": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a positive number, not {self.learning_rate}")
        if self.min_lr_ratio > 1:
            raise ValueError(f"min_lr_ratio is a share of the peak, from 0 to 1, not {self.min_lr_ratio}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit in 64 bits, not {self.seed}")
        for name in ("from_resume", "overwrite"):
            if getattr(self, name) not in (0, 1):
                raise ValueError(f"{name} must be 0 or 1, not {getattr(self, name)}")
        if self.from_resume and self.overwrite:
            raise ValueError("from_resume continues a run and overwrite deletes it: choose one of them")
