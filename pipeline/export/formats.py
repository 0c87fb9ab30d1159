"""What the model card says of each checkpoint format: the library that loads it, and how."""

from __future__ import annotations

_TRANSFORMERS = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")  # this folder
model = AutoModelForCausalLM.from_pretrained(".")
{prompt}
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))
```"""
_CONVERSATION = """\
messages = [{"role": "user", "content": "..."}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")"""
_DOCUMENT = """\
prompt = tokenizer(tokenizer.bos_token + "...", add_special_tokens=False, return_tensors="pt")"""

_NATIVE = """\
In the repository that made it (its package `model` needs torch and safetensors only):

```python
from model import generate, load_pretrained

model = load_pretrained("DIR")  # this folder
```

or `python -m pipeline.generate --model DIR "..."`."""

_STATE_SPACES = """\
```python
import torch
from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

model = MambaLMHeadModel.from_pretrained(".", device="cuda", dtype=torch.float32)  # this folder
```"""

_MEGATRON = """\
Megatron-LM takes this folder with `--load DIR --ckpt-format torch --use-checkpoint-args --tokenizer-type
HuggingFaceTokenizer --tokenizer-model DIR`; `load_pretrained("DIR")` of the repository that made it reads it too."""


def is_huggingface(format: str) -> bool:
    """Whether it is one of transformers' own."""
    return format.startswith("hf-")


def library(format: str) -> str:
    """`library_name` of the front matter."""
    others = {"native": "pytorch", "state-spaces": "mamba-ssm", "megatron": "megatron-lm"}
    return "transformers" if is_huggingface(format) else others[format]


def how_to_load(format: str, *, conversations: bool) -> str:
    """Markdown that says how to load the folder; `conversations`: what the model answers to is one."""
    if is_huggingface(format):
        return _TRANSFORMERS.replace("{prompt}", _CONVERSATION if conversations else _DOCUMENT)
    return {"native": _NATIVE, "state-spaces": _STATE_SPACES, "megatron": _MEGATRON}[format]
