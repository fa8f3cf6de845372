"""ssh between compute hosts, by which nova moves disks: a server of each, and a key that all of them take."""
import pathlib
import subprocess

from settings import CONFIG

PRIVATE_FOLDERS = ("/run/sshd", "/root/.ssh")  # empty in our namespace
KEY, HOST_KEY = pathlib.Path("/root/.ssh/id_ed25519"), CONFIG / "ssh_host_key"


def _make_keys() -> None:
    for key in (KEY, HOST_KEY):
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for path, text in [("authorized_keys", KEY.with_suffix(".pub").read_text()),
                       ("config", "StrictHostKeyChecking no\nLogLevel ERROR\nUserKnownHostsFile /dev/null\n")]:
        file = KEY.with_name(path)
        file.write_text(text)
        file.chmod(0o600)


def public_key() -> str:
    """Of the key that this process and what it starts have."""
    _make_keys()
    return KEY.with_suffix(".pub").read_text().strip()


def server_argv(name: str, ip: str) -> list[str]:
    """Of the server of one host, for which keys and configuration are written."""
    _make_keys()
    config = CONFIG / f"sshd-{name}.conf"
    config.write_text(f"ListenAddress {ip}:22\nHostKey {HOST_KEY}\nPermitRootLogin prohibit-password\nUsePAM no\n"
                      f"StrictModes no\nPidFile none\nSubsystem sftp internal-sftp\nPrintMotd no\n")
    return ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
