"""A callback for the Trainer of transformers, and so for TRL's trainers, that logs to a Track.

trainer = Trainer(..., callbacks=[track_callback(start("my-model"))])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.runs.track import Track


def track_callback(track: Track) -> Any:
    """A `transformers.TrainerCallback` that logs each number of the Trainer, and the weights it saves, to `track`.

    Only the first process of a distributed run logs. A Trainer that resumes rewinds the track to its checkpoint.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise ConfigError("the callback needs transformers: pip install transformers") from None

    class TrackCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Logs what the Trainer reports."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Rewind to the checkpoint that the Trainer goes on from."""
            if state.is_world_process_zero and state.global_step:
                track.rewind(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Log the numbers."""
            if state.is_world_process_zero:
                numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
                track.log(numbers, step=state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Keep the hashes of the weights that were saved, after what was logged before them."""
            if not state.is_world_process_zero:
                return
            track.flush()
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for file in sorted(folder.glob("*.safetensors")):
                track.artifact(file, name=f"{folder.name}/{file.name}", step=state.global_step)

    return TrackCallback()
