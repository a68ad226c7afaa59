"""``python -m nazx_cli`` is ``nazx``."""

from __future__ import annotations

from nazx_cli.ui.terminal.interrupts import handle_interrupts, leave

# Before anything that takes time is imported: there is nothing yet that Ctrl-C could spoil.
handle_interrupts(leave)


def main() -> None:
    """Run the program."""
    from nazx_cli.cli.app import main

    main()


if __name__ == "__main__":
    main()
