"""Cinder whose first back end exports its volumes over iSCSI with CHAP, by tgt, which runs beside it; and what tgt itself says."""
import contextlib
import dataclasses
import pathlib
import re
import subprocess

import cinder_service
from cinder_service import BACK_ENDS, FILE, FOLDER
from processes import program_environment
from settings import CONFIG, HOME

PORT = 3260
EXPORTS = HOME / "exports"
# Of the sections that are there already.
CONF = f"""[{BACK_ENDS[0]}]
volume_driver = iscsi_volumes.IscsiDriver
target_helper = tgtadm
target_protocol = iscsi
target_ip_address = 127.0.0.1
target_port = {PORT}
use_chap_auth = true
volumes_dir = {EXPORTS}
"""
# An emulated processor is in no hurry; and a host is not down because it is slow.
OF_NOVA = """[DEFAULT]
rpc_response_timeout = 600
long_rpc_timeout = 1800
service_down_time = 600
"""


class IscsiCinder(cinder_service.Cinder):
    PROGRAMS = [*cinder_service.Cinder.PROGRAMS, "tgtd", "tgtadm", "tgt-admin"]
    PRIVATE_FOLDERS = ("/run/tgtd", "/etc/tgt/conf.d")

    def write_settings(self) -> None:
        super().write_settings()
        EXPORTS.mkdir()
        pathlib.Path(self.PRIVATE_FOLDERS[1], "cinder.conf").write_text(f"include {EXPORTS}/*\n")
        for path, text in ((FILE, CONF), (CONFIG / "nova/nova.conf", OF_NOVA)):
            with open(path, "a") as file:
                file.write(text)

    def start(self, databases, start, start_wsgi) -> None:
        start("tgtd", ["tgtd", "--foreground", "--iscsi", f"portal=127.0.0.1:{PORT}"]).await_port(PORT)
        super().start(databases, start, start_wsgi)

    def end(self) -> None:
        """tgtd goes on after a SIGTERM."""
        with contextlib.suppress(RuntimeError):
            for target in targets():
                tgtadm("--op", "delete", "--mode", "target", "--tid", target.number, "--force")
            tgtadm("--op", "delete", "--mode", "system")


# ---- what the target says ---------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Target:
    number: str
    name: str
    accounts: list[str]
    initiators: list[str]  # who is logged in


def tgtadm(*words: str) -> str:
    result = subprocess.run(["tgtadm", "--lld", "iscsi", *words], capture_output=True, text=True, env=program_environment({}), timeout=60)
    if result.returncode != 0:
        raise RuntimeError(f"tgtadm {' '.join(words)}: {result.stderr.strip()}")
    return result.stdout


def targets() -> list[Target]:
    found = []
    for text in re.split(r"^(?=Target )", tgtadm("--op", "show", "--mode", "target"), flags=re.MULTILINE)[1:]:
        number, name = re.match(r"Target (\d+): (\S+)", text).groups()
        accounts = text.partition("Account information:")[2].partition("ACL information:")[0].split()
        found.append(Target(number, name, accounts, re.findall(r"^\s+Initiator: (\S+)", text, re.MULTILINE)))
    return found


def target_of(volume: str) -> Target | None:
    return next((target for target in targets() if target.name.endswith(f":volume-{volume}")), None)


def password_of(volume: str) -> str:
    """Which Cinder had tgt take."""
    return re.search(r"^\s*incominguser \S+ (\S+)$", (EXPORTS / f"volume-{volume}").read_text(), re.MULTILINE)[1]


def remove_account(account: str) -> None:
    """It would outlive its target, with its password."""
    tgtadm("--op", "delete", "--mode", "account", "--user", account)


def set_password(volume: str, password: str) -> None:
    """At the target alone: neither Cinder nor the host is told."""
    target = target_of(volume)
    account, = target.accounts
    remove_account(account)
    tgtadm("--op", "new", "--mode", "account", "--user", account, "--password", password)
    tgtadm("--op", "bind", "--mode", "account", "--tid", target.number, "--user", account)


__all__ = ["FOLDER", "IscsiCinder", "Target", "password_of", "remove_account", "set_password", "target_of", "targets"]
