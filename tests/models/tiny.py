"""What the configs of tiny models have in common."""

from __future__ import annotations

from typing import Any

from .harness import VOCABULARY

ENCODER: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 160,
}
BASE: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
    "rope_theta": 500.0,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 40,
    "rope_theta": 500.0,
}
