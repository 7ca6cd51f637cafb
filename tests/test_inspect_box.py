"""Our sandbox as Inspect's: its own conformance checks."""
import pytest
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
