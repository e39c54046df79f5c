"""Where the page is: on this machine, which no other can reach."""

import os
import socket

from viker_lightning.errors import UserError

HERE = "127.0.0.1"
"""The only address that is bound."""


def bind(port: int) -> socket.socket:
    """A socket that only this machine reaches; port 0 is any that is free."""
    bound = socket.socket()
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HERE, port))
        bound.listen()
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(f"--port: {port} cannot be had ({error}); give another, or 0 for any that is free") from error
    return bound
