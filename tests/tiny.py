"""A tiny random model in a Hugging Face folder, with a tokenizer trained on a few lines: real files for real loading."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from engine_tiny import tiny_model
from firsthand.nn import weights

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = ["What is 12 + 30? The answer is 42.", "Thought: I need the sum.\nAction: calculator[12 + 30]\nObservation: 42"]


def write_tokenizer(folder: Path, *, template: str | None = CHATML, specials: Sequence[str] = ()) -> int:
    """Write tokenizer.json and its config; returns the size of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[*SPECIALS, *specials], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    max_position: int = 512,
    template: str | None = CHATML,
    specials: Sequence[str] = (),
) -> Path:
    """Write a whole model folder and return it. The model babbles, always the same way."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder, template=template, specials=specials)
    model = tiny_model(seed, max_position=max_position, vocab_size=vocab_size)
    weights.save(model, folder)
    return folder
