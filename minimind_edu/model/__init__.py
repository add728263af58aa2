"""The model: RoPE, attention, mixture of experts, the transformer, and its weights."""
