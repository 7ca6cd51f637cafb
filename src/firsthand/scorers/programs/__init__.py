"""Programs that test code inside the sandbox. Standard library only; they import nothing of ours."""
