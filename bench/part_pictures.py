"""Draws the pictures and plots of docs/part-*.md from runs of real models, as SVG files.

    python bench/part_pictures.py --model MODEL --out docs/part-pictures
    python bench/part_pictures.py --only experts --steps 600 --out docs/part-pictures

`heads`, `distance`, `norms` and `gqa` look at MODEL (SmolLM2-135M in the docs). `experts` trains a dense model and two
mixtures on the Markdown of docs/, byte by byte: the mixtures compute as much for a token as the dense model and have
eight times the weights in their MLPs. `cross` trains an encoder-decoder to reverse words. `vocabulary` trains vocabularies
of each kind and size on the Markdown of docs/. `types` writes MODEL, best in float16, in several GGUF types and compares
next-token distributions. `planning` compares planned activations with those that autograd keeps. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.hub.model_shapes import shape_from_architecture
from firsthand.hub.resource_plan import plan_training_memory
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.experts import load_balancing_loss
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_quantizer import quantise_model
from firsthand.show.line_plot import line_plot, plot_svg
from firsthand.tokens import pretrained
from firsthand.train.vocabulary import VocabularyKind, train_vocabulary

TEXT = "The cat that chased the mice was hungry because it had not eaten."
DOCS = Path(__file__).parent.parent / "docs"
PROSE = Path(__file__).parent.parent / "tests" / "data" / "dickens_1859.txt"
LENGTH, BATCH = 64, 8


def heatmap(rows: Sequence[Sequence[float]], down: Sequence[str], across: Sequence[str], size: int = 22) -> str:
    """A grid of numbers from 0 to 1 as SVG, darker for more."""
    left, top = 8 + 7 * max(map(len, down)), 10 + 6 * max(map(len, across))
    width, height = left + size * len(across) + 8, top + size * len(down) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="monospace" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, name in enumerate(down):
        parts.append(f'<text x="{left - 4}" y="{top + size * i + 15}" text-anchor="end">{escape(name)}</text>')
    for j, name in enumerate(across):
        x = left + size * j + 15
        parts.append(f'<text transform="translate({x} {top - 4}) rotate(-90)">{escape(name)}</text>')
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            shade = round(255 * (1 - min(max(value, 0.0), 1.0) ** 0.6))
            parts.append(
                f'<rect x="{left + size * j}" y="{top + size * i}" width="{size - 1}" height="{size - 1}" '
                f'fill="rgb({shade},{(shade + 255) // 2},255)"><title>{value:.3f}</title></rect>'
            )
    return "\n".join([*parts, "</svg>", ""])


def plotted(curves: dict[str, list[tuple[float, float]]], axes: tuple[str, str]) -> str:
    """A plot of lines as SVG."""
    plot = line_plot(curves, axes)
    assert plot is not None, "nothing to plot"
    return plot_svg(plot)


def of_the_model(path: str) -> dict[str, str]:
    """Heads, weight by distance, sizes of the residual stream: of one text through a real model."""
    from firsthand.interp.activations import run_with_cache
    from firsthand.interp.model_look import look_at
    from firsthand.nn import weights
    from firsthand.tokens import pretrained

    model, tokenizer = weights.load(path), pretrained.load(Path(path))
    ids = tokenizer.encode(TEXT)
    found = look_at(model, tokenizer, ids)
    count = len(found.tokens)
    grids = {
        (head.layer, head.head): torch.frombuffer(bytearray(base64.b64decode(head.weights)), dtype=torch.uint8)
        .reshape(count, count)
        .float()
        / 255
        for head in found.heads
    }
    previous = max(found.heads, key=lambda head: head.to_previous)
    print(f"layer {previous.layer}, head {previous.head}: {previous.to_previous:.2f} on the token before")
    names = [token.strip() or token for token in found.tokens]
    pictures = {"heads": heatmap(grids[previous.layer, previous.head].tolist(), names, names)}
    a, lines = model.architecture, {}
    for layer in (0, a.num_layers // 2, a.num_layers - 1):
        mean = torch.stack([grids[layer, head] for head in range(a.num_heads)]).mean(0)
        lines[f"layer {layer}"] = [(d, float(mean.diagonal(-d)[1:].mean())) for d in range(count - 2)]
    pictures["distance"] = plotted(lines, ("tokens back", "mean attention weight"))
    sites = [f"blocks.{layer}.{site}" for layer in range(a.num_layers) for site in ("resid.post", "mlp.in")]
    cache = run_with_cache(model, ids, sites).cache
    rms = {
        site: [
            (layer, float(cache[f"blocks.{layer}.{site}"].square().mean(-1).sqrt().median()))
            for layer in range(a.num_layers)
        ]
        for site in ("resid.post", "mlp.in")
    }
    pictures["norms"] = plotted(
        {"residual stream": rms["resid.post"], "after RMSNorm, into the MLP": rms["mlp.in"]},
        ("layer", "root mean square, median of tokens"),
    )
    return pictures


def of_cache_sizes() -> dict[str, str]:
    """Bytes of the KV cache by length, with a KV head for each query head and with the model's own."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES

    shape, lengths = KNOWN_SHAPES["llama-3-8b"], [1024 * 2**i for i in range(8)]
    each = 2 * shape.num_layers * shape.head_dim * 2 / 2**30
    heads = {"MHA: 32 KV heads": 32, "GQA: 8 KV heads, its own": 8, "MQA: 1 KV head": 1}
    lines = {name: [(float(n), n * count * each) for n in lengths] for name, count in heads.items()}
    return {"gqa": plotted(lines, ("tokens", "GiB of cache, Llama 3 8B, float16"))}


def byte_model(experts: ExpertSettings | None, inner: int) -> Decoder:
    """A decoder of bytes with two layers."""
    a = Architecture(
        family="mixtral", vocab_size=256, hidden_size=64, intermediate_size=inner, num_layers=2, num_heads=4,
        num_kv_heads=2, head_dim=16, max_position=LENGTH, norm_eps=1e-5, windows=(None,) * 2, ropes=(Rope(),) * 2,
        tie_embeddings=True, experts=experts,
    )  # fmt: skip
    return initialise(Decoder(a), seed=0)


def of_experts(steps: int) -> dict[str, str]:
    """Held-out loss by training FLOPs of a dense model and of mixtures, and the shares of their experts."""
    mixture = ExpertSettings(num_experts=16, per_token=2, width=64, layers=(True, True))
    models = {
        "dense": (byte_model(None, 128), 0.0),
        "16 experts, 2 a token": (byte_model(mixture, 128), 0.05),
        "the same without the balancing loss": (byte_model(mixture, 128), 0.0),
    }
    text = b"".join(page.read_bytes() for page in sorted(DOCS.glob("*.md")))
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    cut = len(data) * 9 // 10
    flops = 6 * (2 * (4 * 64 * 64 * 3 // 4 + 3 * 64 * 128) + 256 * 64) * LENGTH * BATCH  # 2 layers of attention and MLP
    losses: dict[str, list[tuple[float, float]]] = {}
    shares: dict[str, Tensor] = {}
    for name, (model, balance) in models.items():
        generator, began = torch.Generator().manual_seed(1), time.process_time()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses[name] = []
        for step in range(steps + 1):
            if step % (steps // 8) == 0:
                losses[name].append((step * flops / 1e9, held_out(model, data[cut:])))
            starts = torch.randint(0, cut - LENGTH - 1, (BATCH,), generator=generator)
            ids = torch.stack([data[start : start + LENGTH + 1] for start in starts])
            logits = list[Tensor]()
            loss = mean_loss(model, ids, logits)
            if balance:
                loss = loss + balance * load_balancing_loss(logits, 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if model.architecture.experts is not None:
            shares[name] = expert_shares(model, data[cut:])
        print(f"{name}: {losses[name][-1][1]:.3f} nats a byte, {time.process_time() - began:.0f} s of CPU")
        if name in shares:
            busiest, idlest = float(shares[name].max()), float(shares[name].min())
            print(f"  busiest expert {busiest:.3f} of all choices, idlest {idlest:.4f}, where 0.0625 is even")
    rows = [share.mul(4).tolist() for name in shares for share in shares[name]]
    down = [f"{kind}, layer {layer}" for kind in ("balanced", "not balanced") for layer in range(2)]
    return {
        "experts-loss": plotted(losses, ("GFLOP of training", "held-out loss, nats a byte")),
        "experts-shares": heatmap(rows, down, [str(expert) for expert in range(16)]),
    }


def mean_loss(model: Decoder, ids: Tensor, logits: list[Tensor]) -> Tensor:
    """The loss of rows of bytes; the router's logits are added to a list."""
    rows, length = ids.shape[0], ids.shape[1] - 1
    taps = {}
    if model.architecture.experts is not None:
        taps = {f"blocks.{layer}.mlp.router": logits.append for layer in range(2)}
    positions = torch.arange(length).repeat(rows)
    hidden = model(ids[:, :-1].flatten(), positions, Packed([length] * rows), taps=taps or None)
    return functional.cross_entropy(model.logits(hidden), ids[:, 1:].flatten())


@torch.no_grad()
def held_out(model: Decoder, data: Tensor) -> float:
    """Loss on the first rows of the held-out text."""
    rows = [data[i : i + LENGTH + 1] for i in range(0, min(len(data) - LENGTH - 1, 40 * LENGTH), LENGTH)]
    return float(mean_loss(model, torch.stack(rows), []))


@torch.no_grad()
def expert_shares(model: Decoder, data: Tensor) -> Tensor:
    """The share of each expert in all choices, layer by layer: 2 E."""
    logits = list[Tensor]()
    rows = [data[i : i + LENGTH + 1] for i in range(0, min(len(data) - LENGTH - 1, 40 * LENGTH), LENGTH)]
    mean_loss(model, torch.stack(rows), logits)
    chosen = [each.topk(2, dim=-1).indices.flatten() for each in logits]
    return torch.stack([torch.bincount(each, minlength=16) / len(each) for each in chosen])


def of_cross_attention(steps: int) -> dict[str, str]:
    """Where the decoder of a model that reverses words looks in the source."""
    from firsthand.nn.encoder_decoder import EncoderDecoder
    from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture

    torch.manual_seed(0)
    a = EncoderDecoderArchitecture(
        family="marian", vocab_size=28, hidden_size=48, num_encoder_layers=1, num_decoder_layers=1, encoder_heads=4,
        decoder_heads=4, head_dim=12, encoder_width=96, decoder_width=96, positions="sinusoidal", max_position=32,
        norm_eps=1e-5, decoder_start=0, end=1,
    )  # fmt: skip
    model = EncoderDecoder(a)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    lengths = [10] * 16
    positions = torch.cat([torch.arange(length) for length in lengths])
    for step in range(steps + 1):
        words = torch.randint(2, 28, (16, 10))
        turned = words.flip(1)
        inputs = torch.cat([torch.zeros(16, 1, dtype=torch.long), turned[:, :-1]], dim=1)
        sources = model.sources(model.encode(words.flatten(), lengths), lengths)
        logits = model.logits(model(inputs.flatten(), positions, Packed(lengths), sources))
        loss = functional.cross_entropy(logits, turned.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (steps // 8) == 0:
            losses.append((float(step), loss.item()))
    print(f"reversing words: {losses[-1][1]:.3f} nats a letter after {steps} steps")
    word = "transforms"
    ids = torch.tensor([ord(letter) - 95 for letter in word])
    weights = cross_weights(model, ids)
    out = model.generate(ids.tolist(), max_tokens=10)
    said = [chr(token + 95) for token in out]
    print(word, "->", "".join(said))
    return {
        "cross-attention": heatmap(weights.tolist(), said, list(word)),
        "cross-loss": plotted({"reversing words": losses}, ("steps", "loss, nats a letter")),
    }


@torch.no_grad()
def cross_weights(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """Weights of the decoder's last cross-attention, mean of its heads: output by source."""
    from firsthand.nn.encoder_decoder import EncoderDecoder

    assert isinstance(model, EncoderDecoder)
    lengths, kept = [len(ids)], dict[str, Tensor]()
    sources = model.sources(model.encode(ids, lengths), lengths)
    attention = model.decoder.layers[-1].cross_attention
    attention.q_proj.register_forward_hook(lambda module, given, out: kept.update(q=out))
    inputs = torch.cat([torch.zeros(1, dtype=torch.long), ids.flip(0)[:-1]])
    model(inputs, torch.arange(len(ids)), Packed(lengths), sources)
    q = kept["q"].unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
    k = sources.keys[-1].transpose(0, 1)
    return (q @ k.transpose(1, 2) * attention.scale).softmax(-1).mean(0)


def of_vocabularies() -> dict[str, str]:
    """Tokens of a word of held-out pages, by the size of the vocabulary and the way it is made."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))]
    held_out, seen = pages[::10], [page for place, page in enumerate(pages) if place % 10]
    words = sum(len(page.split()) for page in held_out)
    kinds: tuple[VocabularyKind, ...] = ("bpe", "unigram", "wordpiece")
    lines: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            lines[kind] = []
            for size in (500, 1_000, 2_000, 4_000, 8_000):
                tokenizer = train_vocabulary(seen, Path(folder) / f"{kind}-{size}", kind=kind, vocab_size=size)
                tokens = sum(len(tokenizer.encode(page)) for page in held_out)
                lines[kind].append((size, tokens / words))
    return {"vocabulary": plotted(lines, ("tokens in the vocabulary", "tokens of a word, held-out pages"))}


def of_types(path: Path) -> dict[str, str]:
    """The divergence of the next token's distribution from the source's, by the size of the file."""
    ids = pretrained.load(path).encode(PROSE.read_text(encoding="utf-8"))[:512]

    def logprobs(file: Path) -> Tensor:
        model = weights.load(str(file))
        with torch.no_grad():
            states = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
            return torch.log_softmax(model.logits(states), -1)

    source = logprobs(path)
    families = {
        "K types": ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"),
        "blocks of 32": ("Q4_0", "Q5_0", "Q8_0"),
    }
    lines: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for family, names in families.items():
            lines[family] = []
            for name in names:
                file = Path(folder) / f"{name}.gguf"
                quantise_model(path, file, name, threads=2)
                divergence = float((source.exp() * (source - logprobs(file))).sum(1).mean())
                lines[family].append((file.stat().st_size / 1e6, divergence))
                print(name, lines[family][-1])
                file.unlink()
    return {"types": plotted({k: sorted(v) for k, v in lines.items()}, ("MB of the file", "KL from the source, nats"))}


def of_planned_memory(path: str) -> dict[str, str]:
    """Bytes that autograd keeps of a forward pass by length, as planned and as measured."""
    model = weights.load(path).train()
    shape = shape_from_architecture(model.architecture)
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    planned, measured = [], []
    for tokens in (32, 64, 128, 256, 512):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        ids = torch.arange(tokens)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model.logits(model(ids, torch.arange(tokens), Packed([tokens])))
            loss = functional.cross_entropy(logits, ids)
        planned.append(
            (float(tokens), plan_training_memory(shape, "full", "float32", context=tokens).activation_bytes / 1e6)
        )
        measured.append((float(tokens), sum(kept.values()) / 1e6))
        print(tokens, planned[-1][1], measured[-1][1])
        del logits, loss
    return {
        "planning": plotted(
            {"planned": planned, "kept by autograd": measured}, ("tokens", "MB of activations, float32")
        )
    }


def main() -> None:
    """Draws the chosen pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a GGUF file or folder")
    parser.add_argument("--only", choices=("model", "gqa", "experts", "cross", "vocabulary", "types", "planning"))
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--out", type=Path, default=Path("docs/part-pictures"))
    args = parser.parse_args()
    pictures: dict[str, str] = {}
    if args.only in (None, "model", "types", "planning") and not args.model:
        raise SystemExit(
            "--model is missing: a GGUF file or a folder; or give --only gqa, experts, cross or vocabulary"
        )
    if args.only in (None, "model"):
        pictures |= of_the_model(args.model)
    if args.only in (None, "types"):
        pictures |= of_types(Path(args.model))
    if args.only in (None, "planning"):
        pictures |= of_planned_memory(args.model)
    if args.only in (None, "vocabulary"):
        pictures |= of_vocabularies()
    if args.only in (None, "gqa"):
        pictures |= of_cache_sizes()
    if args.only in (None, "experts"):
        pictures |= of_experts(args.steps)
    if args.only in (None, "cross"):
        pictures |= of_cross_attention(args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (args.out / f"{name}.svg").write_text(picture)
    print("wrote", ", ".join(sorted(pictures)))


if __name__ == "__main__":
    main()
