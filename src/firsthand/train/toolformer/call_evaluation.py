"""The loss of a model on held-out texts, without calls and with those that it makes itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.toolformer.call_filter import with_calls
from firsthand.train.toolformer.call_proposals import Annotator, Ids


async def held_out_calls(annotator: Annotator, texts: Sequence[Ids]) -> dict[str, float]:
    """The mean loss of the texts' own tokens as they are, and with calls; and the share of texts that get a call.

    In each text the model calls once at most, where it would by greedy decoding; the call is executed and inserted with its
    result. The tokens of calls are conditions and no part of the loss. A call that fails is not inserted.
    """
    places = annotator.first_calls(texts)
    made, _ = await annotator.proposals(texts, places, count=1, temperature=0.0)
    inserted = {each.text: {each.place: annotator.encoded(each.call.written(each.result))} for each in made}
    longer = [with_calls(ids, inserted.get(text, {})) for text, ids in enumerate(texts)]
    plain, called = (
        [each.logprobs for each in stream_logprobs(annotator.model, rows, micro_tokens=annotator.micro_tokens)]
        for rows in (texts, longer)
    )
    own = []
    for text, logprobs in enumerate(called):
        for place, call in inserted.get(text, {}).items():
            logprobs = np.delete(logprobs, range(place, place + len(call)))
        own.append(logprobs[1:])
    return {
        "held_out_loss": -float(np.concatenate([each[1:] for each in plain]).mean()),
        "held_out_loss_with_calls": -float(np.concatenate(own).mean()),
        "held_out_call_rate": len(inserted) / len(texts),
    }
