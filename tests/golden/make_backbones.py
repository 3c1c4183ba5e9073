"""Write the tiny backbones of golden adapters: ``python tests/golden/make_backbones.py``.

One folder per family with ``config.json`` and ``model.safetensors``: 2 layers of width 32, 4 heads
(2 key-value heads where the family groups them), a feed-forward width of 64 and 64 tokens. Every
parameter is random, norms and biases too, so that nothing is right by accident. The files are
committed; golden adapters are exact for these bytes only.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
import transformers

BACKBONES = Path(__file__).parent / "backbones"
_SIZES = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_DECODER = _SIZES | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
_ENCODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_IMAGES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_DECODER)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**_without(_DECODER, "head_dim"))
    ),
    "gemma": lambda: transformers.GemmaForCausalLM(transformers.GemmaConfig(**_DECODER)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **_SIZES, n_embd=32, n_inner=64, n_layer=2, n_head=4, n_positions=64
        )
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            **_without(_SIZES, "bos_token_id"),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        )
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            **_SIZES,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
        )
    ),
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**_ENCODER)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**_ENCODER)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**_IMAGES)),
    "mistral": lambda: transformers.MistralModel(
        transformers.MistralConfig(**_DECODER | {"num_hidden_layers": 1})
    ),
    "mbart": lambda: transformers.MBartModel(
        transformers.MBartConfig(
            **_SIZES,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
        )
    ),
    "mt5": lambda: transformers.MT5Model(
        transformers.MT5Config(
            **_without(_SIZES, "bos_token_id"),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="relu",
            decoder_start_token_id=0,
        )
    ),
    "xlmr": lambda: transformers.XLMRobertaModel(
        transformers.XLMRobertaConfig(**_ENCODER | {"num_hidden_layers": 1})
    ),
}


def _without(values: dict[str, int], *names: str) -> dict[str, int]:
    return {name: value for name, value in values.items() if name not in names}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter random values: matrices small enough that logits are of order one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            is_gain = bool((parameter == 1).all())
            parameter.data = 0.2 * draw + (1.0 if is_gain else 0.0)
        else:
            parameter.data = draw * parameter.shape[-1] ** -0.5


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Write one backbone; returns its folder."""
    model = MODELS[name]().eval()
    randomise(model, seed)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(Path(temporary) / file, folder / file)
    return folder


if __name__ == "__main__":
    for number, name in enumerate(MODELS):
        print(save(name, BACKBONES / name, seed=number))
