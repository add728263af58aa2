"""Commands that train models: the tour and the stages."""

from minimind_edu.course.tour import TourConfig, format_report, tour
from minimind_edu.stages.distill import DistillConfig, distill
from minimind_edu.stages.dpo import DPOConfig, dpo
from minimind_edu.stages.grpo import GRPOConfig, grpo
from minimind_edu.stages.lora import ADAPTER_FOLDER, LoRAConfig, lora
from minimind_edu.stages.pretrain import PretrainConfig, pretrain
from minimind_edu.stages.reasoning import ReasonConfig, reason
from minimind_edu.stages.setup import StageResult
from minimind_edu.stages.sft import SFTConfig, sft


def run_tour(config: TourConfig) -> None:
    print(format_report(tour(config)))


def run_pretrain(config: PretrainConfig) -> None:
    _report(pretrain(config), f"minimind-edu sft --from_weight {config.out_dir}")


def run_sft(config: SFTConfig) -> None:
    _report(sft(config), _chat(config.out_dir))


def run_lora(config: LoRAConfig) -> None:
    result = lora(config)
    print(f"the adapter alone, in peft's format, is in {config.out_dir}/{ADAPTER_FOLDER}")
    _report(result, _chat(config.out_dir))


def run_dpo(config: DPOConfig) -> None:
    _report(dpo(config), _chat(config.out_dir))


def run_distill(config: DistillConfig) -> None:
    following = "sft" if config.data_kind == "pretrain" else "chat"
    _report(distill(config), f"minimind-edu {following} --from_weight {config.out_dir}")


def run_reason(config: ReasonConfig) -> None:
    _report(reason(config), f"minimind-edu grpo --from_weight {config.out_dir}")


def run_grpo(config: GRPOConfig) -> None:
    lines: list[dict[str, float]] = []
    result = grpo(config, on_log=lines.append)
    seen = [line for line in lines if "reward" in line]
    if seen:
        first, last = seen[0], seen[-1]
        print(
            f"mean reward {first['reward']:.3f} at step {first['step']:.0f}, {last['reward']:.3f} at the end"
        )
    _report(result, _chat(config.out_dir))


def _chat(folder: str) -> str:
    return f"minimind-edu chat --from_weight {folder}"


def _report(result: StageResult, next_command: str) -> None:
    fit = result.fit
    validated = "" if fit.validation_loss is None else f"; validation loss {fit.validation_loss:.4f}"
    print(f"{fit.step} steps, {fit.tokens:,} tokens, {fit.seconds:.0f} s ({fit.precision}){validated}")
    for note in result.notes:
        print(f"note: {note}")
    print(f"model and tokenizer are in {result.model_dir}\nnext: {next_command}")
