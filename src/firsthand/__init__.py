"""Run any model with any reasoning pattern on any task, and see with error bars what each idea buys and costs."""

__version__ = "0.1.0"
