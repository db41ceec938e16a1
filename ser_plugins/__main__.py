"""``python -m ser_plugins`` is ``ser-plugins``."""

from ser_plugins.commands import main

if __name__ == "__main__":
    main()
