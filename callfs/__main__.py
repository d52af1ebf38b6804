"""``python -m callfs``: the same as the ``callfs`` command."""

from callfs.cli import main

if __name__ == "__main__":
    main(prog_name="callfs")
