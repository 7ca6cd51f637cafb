"""`python -m firsthand` is `firsthand`, whose console script calls `main` too."""

import sys


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    try:
        from firsthand.cli import main as run_command_line
    except KeyboardInterrupt:  # Ctrl-C while Python still imports
        print("\nfirsthand: interrupted", file=sys.stderr)
        return 130
    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
