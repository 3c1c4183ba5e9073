"""vLLM's offline engine in this process; ``max_adapters`` 0 serves the bare model alone."""

import pipe

replies = pipe.open_pipe()

import torch  # noqa: E402
import vllm  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402

job = pipe.settings()
lora = {}
if job["max_adapters"]:
    lora = {
        "enable_lora": True,
        "max_loras": job["max_adapters"],
        "max_cpu_loras": job["max_adapters"],
        "max_lora_rank": job["rank"],
    }
llm = vllm.LLM(
    model=job["backbone"],
    dtype=job["dtype"],
    skip_tokenizer_init=True,
    max_model_len=job["num_input"] + job["num_output"],
    max_num_seqs=len(job["inputs"]),
    max_num_batched_tokens=len(job["inputs"]) * job["num_input"],
    enable_prefix_caching=False,
    disable_log_stats=True,
    seed=0,
    **lora,
)
prompts = [{"prompt_token_ids": ids} for ids in job["inputs"]]
sampling = vllm.SamplingParams(
    temperature=0, max_tokens=job["num_output"], ignore_eos=True, detokenize=False
)


def answer(kind, count):
    """Tokens of every row; row i asks for adapter ``i % count``."""
    adapters = None
    if kind == "lora":
        chosen = [i % count for i in range(len(prompts))]
        adapters = [LoRARequest(f"a{i}", i + 1, job["adapters"][i]) for i in chosen]
    outputs = llm.generate(prompts, sampling, lora_request=adapters, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


pipe.serve(
    replies, answer, package="vllm", version=vllm.__version__, num_threads=torch.get_num_threads()
)
