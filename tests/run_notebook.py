"""Execute a notebook as Kaggle would: in a given folder, without kaggle_digits installed, and without a network.

Run as ``[unshare --map-root-user --net] python run_notebook.py NOTEBOOK FOLDER RESULT``. In a new network
namespace even the loopback interface is down. nbclient needs it to talk to the process that runs the cells.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys

import nbclient
import nbformat

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def main(notebook: str, folder: str, result: str) -> None:
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    cells = nbformat.read(notebook, as_version=4)
    client = nbclient.NotebookClient(cells, timeout=1800, record_timing=False, resources={"metadata": {"path": folder}})
    try:
        client.execute()
    finally:
        nbformat.write(cells, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
