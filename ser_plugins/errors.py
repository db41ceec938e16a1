"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something the user gave is unusable.

    The message is one line that names the thing and the remedy; the command line prints it and exits with status 2.
    """
