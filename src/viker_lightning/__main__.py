"""``python -m viker_lightning {fit,validate,test,predict} --config ...``."""

from viker_lightning.cli import main

if __name__ == "__main__":
    main()
