"""``generate`` of transformers, bare and through PEFT with ``adapter_names``, in this process."""

import pipe

replies = pipe.open_pipe()

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

job = pipe.settings()
torch.set_num_threads(1)


def load():
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["backbone"], dtype=getattr(torch, job["dtype"]), local_files_only=True
    )
    model.generation_config.eos_token_id = None
    return model.eval()


bare = load()
adapted = None
for number, folder in enumerate(job["adapters"]):
    name = f"a{number}"
    if adapted is None:
        adapted = peft.PeftModel.from_pretrained(load(), folder, adapter_name=name)
    else:
        adapted.load_adapter(folder, name, low_cpu_mem_usage=True)
adapted.eval()
# Adapters are read as float32; they run in the model's dtype, as vLLM's and ours do.
adapted.to(getattr(torch, job["dtype"]))
ids = torch.tensor(job["inputs"])
mask = torch.ones_like(ids)
settings = {"max_new_tokens": job["num_output"], "do_sample": False, "pad_token_id": 0}


@torch.inference_mode()
def answer(kind, count):
    """Tokens of every row; row i asks for adapter ``i % count``."""
    if kind == "bare":
        out = bare.generate(ids, attention_mask=mask, **settings)
    else:
        names = [f"a{i % count}" for i in range(len(ids))]
        out = adapted.generate(input_ids=ids, attention_mask=mask, adapter_names=names, **settings)
    return out[:, ids.shape[1] :].tolist()


pipe.serve(
    replies,
    answer,
    package="peft",
    version=peft.__version__,
    transformers=transformers.__version__,
    num_threads=torch.get_num_threads(),
)
