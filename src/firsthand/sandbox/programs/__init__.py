"""Programs that run inside the sandbox. Standard library only; they import nothing of ours."""
