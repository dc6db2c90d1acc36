"""``python -m truecount`` is ``truecount``."""

from truecount.cli import main

if __name__ == "__main__":
    main()
