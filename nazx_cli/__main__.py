"""``python -m nazx_cli`` is ``nazx``."""

from nazx_cli.cli.app import main

if __name__ == "__main__":
    main()
