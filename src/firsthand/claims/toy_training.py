"""Models of 100,000 parameters, trained by a recipe of `firsthand train` once a seed and kept in the lab's folder."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

from firsthand.agent import Agent
from firsthand.claims.lab import Lab


def trained(lab: Lab, recipe: str, name: str, **settings: Any) -> Path:
    """The folder of a run of the recipe, whose model is in `model`; what the recipe prints is not shown.

    `name` says which settings they are: another run of the same name and seed is not made again.
    """
    folder = lab.folder / f"{name}-{lab.seed}"
    if not (folder / "model").exists():
        from firsthand import catalog
        from firsthand.config import build
        from firsthand.train.training_run import opened

        function = catalog.find("recipe", recipe)
        config_class = importlib.import_module(function.__module__).Config
        config = build(config_class, {"checkpoint_every": 0, "seed": lab.seed, **settings})
        unfinished = lab.folder / f"{name}-{lab.seed}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        quiet = io.StringIO()
        with (
            contextlib.redirect_stderr(quiet),
            contextlib.redirect_stdout(quiet),
            opened(unfinished, recipe, config) as run,
        ):
            function(config, run)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    return folder


def agent_of(folder: Path, pattern: str, *, temperature: float = 0.0, max_tokens: int = 24, **more: Any) -> Agent:
    """An agent with the model of a run's folder."""
    from firsthand import catalog
    from firsthand.model import Sampling

    function, options = catalog.pattern(pattern)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    return Agent(pattern, catalog.model(str(folder / "model")), function, options, sampling=sampling, **more)
