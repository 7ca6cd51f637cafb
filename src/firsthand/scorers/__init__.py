"""Scorers: functions of a task and a trace that give a Score. A file a family; each function is a scorer by its name."""
