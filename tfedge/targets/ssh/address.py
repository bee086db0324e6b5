"""A board's address, as a user writes it, and the SSH client's arguments for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfedge.errors import TargetError

_FORM = "Write ssh:USER@HOST, ssh:HOST or ssh:USER@HOST:PORT; an IPv6 address in brackets"
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*)|\[(?P<ip6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_OPTIONS = {
    "BatchMode": "yes",  # It must never ask for a password.
    "ConnectTimeout": "15",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ControlMaster": "no",  # A master in the background would hold our pipes open.
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}


@dataclass(frozen=True)
class Address:
    """Where a board is. A host may be a name of the user's SSH configuration.

    Attributes:
        user: User name, or "" for the SSH client's own choice.
        host: Host name or address.
        port: Port, or 0 for the SSH client's own choice.
    """

    user: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")
        )

    @property
    def by_hand(self) -> str:
        """What a person writes after "ssh "."""
        port = f"-p {self.port} " if self.port else ""
        return port + (f"{self.user}@" if self.user else "") + self.host

    def argv(self, command: str) -> list[str]:
        """The SSH client's command line.

        Args:
            command: What the board's shell is to run; nothing of a user's may be in it.
        """
        options = [word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}")]
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return ["ssh", "-T", "-x", "-a", *options, *user, *port, "--", self.host, command]


def parse(text: str) -> Address:
    """Reads an address.

    Args:
        text: "user@host:port", where user and port may be missing.

    Raises:
        TargetError: It has another form; names of hosts and users are letters, digits and "._-"
            (users also "+"), and begin with none that a program could take for an option.
    """
    match = _ADDRESS.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else 0
    if match is None or port > 65535 or (match["port"] and not port):
        raise TargetError("this is no address of a board", repr(f"ssh:{text}"), _FORM)
    return Address(match["user"] or "", match["host"] or match["ip6"], port)
