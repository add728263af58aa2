"""The balance loss and the parameter count of chapter 3's exercises agree with the package."""

import torch

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course.exercises.ch03_balance import AUX_LOSS, active_parameters, aux_loss
from minimind_edu.course.exercises.checking import examine
from minimind_edu.model.moe import MoEFeedForward


def test_the_balance_loss_is_the_layers():
    config = ModelConfig(hidden_size=8, use_moe=True, moe_intermediate_size=6, router_aux_loss_coef=0.1)
    layer, x = MoEFeedForward(config), torch.randn(2, 9, 8)
    is_token = torch.arange(9).expand(2, 9) < torch.tensor([[9], [5]])
    probabilities = layer.gate(x).softmax(-1).flatten(0, 1)
    ours = aux_loss(probabilities, probabilities.topk(2).indices, is_token.flatten())
    torch.testing.assert_close(0.1 * ours, layer(x, is_token)[1])


def test_active_parameters_are_those_the_model_counts():
    config = ModelConfig.preset("minimind2-moe", hidden_size=64, num_hidden_layers=3)
    with torch.device("meta"):
        model = MiniMind(config)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".mlp." in name)
    one = active_parameters(64, config.moe_intermediate_size, 4, 2, 1)
    assert model.num_parameters(active=True) == model.num_parameters() - experts + 3 * one


def test_an_unforeseen_answer_gets_a_hint():
    def squared(probabilities, chosen, is_token):
        return aux_loss(probabilities, chosen, is_token) ** 2

    assert "balance" in examine(AUX_LOSS, squared, 0)
