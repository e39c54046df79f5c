"""``python -m viker_lightning.grids.tuning``."""

from .tune import main

if __name__ == "__main__":
    main()
