"""Mixtures of experts: Mixtral and Qwen3-MoE are Llama's layers with several MLPs, of which each token takes a few."""

from __future__ import annotations

from dataclasses import dataclass

from ..program.instructions import Activation, Instruction, Moe, Routing
from ..program.operands import Layout, Weight
from .blocks import Blocks
from .config import ModelConfig
from .decoder import decoder, gated_mlp
from .family import Body, tile_buffer, weight

# What transformers assumes where a config is silent.
MIXTRAL = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN3_MOE = {"num_key_value_heads": 4, "max_position_embeddings": 32768, "sliding_window": 4096}


def mixtral(config: ModelConfig) -> Body:
    """`model_type: "mixtral"`: all layers are mixtures, with the weights of the chosen experts summing to 1."""
    count = config.spelling("num_local_experts", "num_experts")
    config = config.completed(MIXTRAL)
    experts = Experts(
        routing=_routing(config, count, normalised=True),
        inner=config.integer("intermediate_size"),
        activation=config.activation("hidden_act", default="silu"),
        at="block_sparse_moe",
        names=("w1", "w3", "w2"),
        fused=_fused(config),
    )
    windows = (config.optional_integer("sliding_window"),)
    return decoder("mixtral", config, windows=windows, feed_forward=experts.feed_forward)


def qwen3_moe(config: ModelConfig) -> Body:
    """`model_type: "qwen3_moe"`: mixtures in all layers, or in every so many-th, but for `mlp_only_layers`."""
    config = config.completed(QWEN3_MOE)
    activation = config.activation("hidden_act", default="silu")
    experts = Experts(
        routing=_routing(
            config,
            config.spelling("num_experts", "num_local_experts"),
            normalised=config.flag("norm_topk_prob", default=False),
        ),
        inner=config.integer("moe_intermediate_size"),
        activation=activation,
        at="mlp",
        names=("gate_proj", "up_proj", "down_proj"),
        fused=_fused(config),
    )
    every = config.integer("decoder_sparse_step", default=1)
    dense = config.layer_numbers("mlp_only_layers")
    plain = gated_mlp(activation)

    def feed_forward(blocks: Blocks, index: int) -> Instruction:
        sparse = index not in dense and (index + 1) % every == 0
        return experts.feed_forward(blocks, index) if sparse else plain(blocks, index)

    used = config.flag("use_sliding_window", default=False)
    bias = config.flag("attention_bias", default=False)
    return decoder(
        "qwen3_moe",
        config,
        qkv_bias=bias,
        output_bias=bias,
        head_norms=True,
        windows=(config.optional_integer("sliding_window") if used else None,),
        feed_forward=feed_forward,
    )


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixtures of a checkpoint, which come with a tensor for each expert, or fused.

    Attributes:
        routing: how tokens choose.
        inner: the width F of an expert.
        activation: of the gates.
        at: the block's name where each expert has its own tensors; fused ones are always in `mlp`.
        names: of an expert's (gate, up, down).
        fused: whether all experts are in two tensors, [X, 2F, D] with the gate first, and [X, D, F].
    """

    routing: Routing
    inner: int
    activation: Activation
    at: str
    names: tuple[str, str, str]
    fused: bool

    def feed_forward(self, blocks: Blocks, index: int) -> Moe:
        """x = mixture(y) + x."""
        x, y, experts = blocks.x, blocks.y, self.routing.experts
        at = f"layers.{index}.{'mlp' if self.fused else self.at}"
        gate, up, down = self._fused(at, x.width) if self.fused else self._apart(at, x.width)
        return Moe(
            stage=index + 1,
            x=y,
            out=x,
            logits=tile_buffer("logits", experts),
            gathered=tile_buffer("gathered", x.width),
            hidden=tile_buffer("expert_hidden", self.inner),
            sums=tile_buffer("sums", x.width),
            router=weight(f"{at}.gate.weight", experts, x.width),
            routing=self.routing,
            up=up,
            gate=gate,
            down=down,
            activation=self.activation,
            residual=x,
        )

    def _apart(self, at: str, width: int) -> tuple[Weight, ...]:
        sizes = ((self.inner, width), (self.inner, width), (width, self.inner))
        count = self.routing.experts
        return tuple(
            Weight(tuple(f"{at}.experts.{expert}.{name}.weight" for expert in range(count)), (count * rows, columns))
            for name, (rows, columns) in zip(self.names, sizes, strict=True)
        )

    def _fused(self, at: str, width: int) -> tuple[Weight, ...]:
        count, rows = self.routing.experts, self.routing.experts * self.inner
        stored, folded = (count, 2 * self.inner, width), (count, 2, self.inner, width)

        def half(first: int) -> Weight:
            layout = Layout(stored, folded, axes=(1, 0, 2, 3), first=first, last=first + rows)
            return Weight((f"{at}.experts.gate_up_proj",), (rows, width), layout)

        down = Weight((f"{at}.experts.down_proj",), (count * width, self.inner), Layout((count, width, self.inner)))
        return half(0), half(rows), down


def _fused(config: ModelConfig) -> bool:
    return any(name.endswith(".experts.gate_up_proj") for name in config.tensors)


def _routing(config: ModelConfig, field: str, *, normalised: bool) -> Routing:
    experts, chosen = config.integer(field), config.integer("num_experts_per_tok")
    if chosen > experts:
        raise config.wrong("num_experts_per_tok", f"is {chosen}, but {field!r} is {experts}")
    return Routing(experts=experts, chosen=chosen, normalised=normalised)
