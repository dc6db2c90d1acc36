"""``python -m truecount.cli`` is ``truecount``."""

from truecount.cli import main

if __name__ == "__main__":
    main()
