"""What the kernel keeps beside files: addresses, tables of nftables, keys. Read without programs, for speed."""
import contextlib
import ctypes
import pathlib
import platform
import re
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_KEYCTL, _ADD_KEY = {"x86_64": (250, 248), "aarch64": (219, 217)}.get(platform.machine(), (0, 0))
SESSION_KEYRING, USER_KEYRING = -3, -4
OURS = re.compile("virtuserns", re.IGNORECASE)


def addresses() -> set[str]:
    """Of this network namespace, version 4 and 6."""
    found = set()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines():
            number, _, prefix, _, _, link = line.split()
            found.add(f"{number}/{int(prefix, 16)} {link}")
    with contextlib.suppress(OSError):
        previous = ""
        for line in pathlib.Path("/proc/net/fib_trie").read_text().splitlines():
            if "host LOCAL" in line:
                found.add(previous.split()[-1])
            previous = line
    return found


NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFTA_TABLE_NAME = 10, 0, 1, 1
NLMSG_ERROR, NLMSG_DONE = 2, 3


def nft_message(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload


def tables() -> set[str]:
    """Of nftables in this network namespace; none where the kernel has none or we may not ask."""
    found = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as asker:  # NETLINK_NETFILTER
            asker.settimeout(5)
            asker.send(nft_message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0x301, struct.pack("=BBH", 0, 0, 0)))
            while True:
                data = asker.recv(65536)
                while len(data) >= 16:
                    size, kind = struct.unpack_from("=IH", data)
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        return found
                    found |= _table(data[16:size])
                    data = data[(size + 3) & ~3:]
    except OSError:
        return found


def _table(body: bytes) -> set[str]:
    family, attributes = body[0], body[4:]
    while len(attributes) >= 4:
        size, kind = struct.unpack_from("=HH", attributes)
        if kind & 0x3FFF == NFTA_TABLE_NAME:
            return {f"family {family} {attributes[4:size - 1].decode(errors='replace')}"}
        attributes = attributes[(size + 3) & ~3:]
    return set()


# ---- keys -------------------------------------------------------------------------------------------------------------

def own_session_keyring() -> None:
    """A new one for this process and what it starts: what is left in it is theirs. Nothing where there are no keys."""
    if _KEYCTL:
        _libc.syscall(_KEYCTL, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING


def add_key(description: str, keyring: int) -> int:
    return _libc.syscall(_ADD_KEY, b"user", description.encode(), b"x", 1, keyring)


def revoke(key: int) -> None:
    for keyring in (SESSION_KEYRING, USER_KEYRING):
        _libc.syscall(_KEYCTL, 9, key, keyring)  # KEYCTL_UNLINK


def _describe(key: int) -> str:
    text = ctypes.create_string_buffer(4096)
    size = _libc.syscall(_KEYCTL, 6, key, text, len(text))  # KEYCTL_DESCRIBE
    return text.value.decode(errors="replace") if size > 0 else ""


def _members(keyring: int) -> list[int]:
    buffer = (ctypes.c_int32 * 4096)()
    size = _libc.syscall(_KEYCTL, 11, keyring, buffer, ctypes.sizeof(buffer))  # KEYCTL_READ
    return list(buffer[:max(0, min(size, ctypes.sizeof(buffer))) // 4])


def keys() -> set[str]:
    if not _KEYCTL:
        return set()
    found = {f"{key} {_describe(key)} of the session" for key in _members(SESSION_KEYRING)}
    # The user's keyring is shared with everybody else who is root here.
    return found | {f"{key} {text} of the user" for key in _members(USER_KEYRING) if OURS.search(text := _describe(key))}

