"""Errors a user can cause and mend."""


class UserError(Exception):
    """Something is not as it must be; the message is one line that says where, what was found and what to do.

    The command line prints the message alone and exits with 1.
    """
