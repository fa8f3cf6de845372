#!/usr/bin/env python3
"""polkit decides who manages and who may only look: a real one, with the shipped actions and the shipped example of a
rule. One line for each check. (F29 and F33 of docs/faults.md.)"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
from host_support import SOURCE, URI, check, did, eventually, finish, install, make_domain, run, start_service  # noqa: E402
from raw_rpc import AUTH_LIST, CONNECT_OPEN, RawClient, RemoteError, optional_string, u32  # noqa: E402

CONFIGURATION = pathlib.Path("/etc/libvirt/virtusernsd.conf")
ACTIONS = pathlib.Path("/usr/share/polkit-1/actions/org.virtuserns.unix.policy")
RULES = pathlib.Path("/etc/polkit-1/rules.d")
SOCKET = "/run/libvirt/virtusernsd-sock"
CLOSE, AUTH_POLKIT, LAST_PROCEDURE, AUTH_FAILED = 2, 70, 500, 45
DENIAL = 'polkit.addRule(function(a, s) { if (a.id == "org.libvirt.unix.manage" && s.user == "elsa") return polkit.Result.NO; });\n'


def as_user(user, *words):
    return run("setpriv", "--reuid", user, "--regid", user, "--init-groups", "virsh", "-c", URI, *words)


def rule(name, text):
    (RULES / name).write_text(text)
    did("polkit reads its rules again", "systemctl", "restart", "polkit.service")


def nobody_who_was_not_asked():
    """elsa is in no group, no rule speaks of her, and there is no terminal where anybody could type a password."""
    said = as_user("elsa", "list", "--all")
    check(said.returncode != 0 and "org.libvirt.unix.manage" in said.stderr, "elsa does not manage", said.stdout + said.stderr)
    said = as_user("elsa", "-r", "list", "--all")
    check(said.returncode == 0 and "web" in said.stdout, "and she may look", said.stderr)
    said = as_user("elsa", "-r", "start", "web")
    check(said.returncode != 0 and "read only" in said.stderr, "only look", said.stderr)


def nothing_before_it():
    """Each procedure by its number, on the socket that elsa may connect to and before polkit was asked."""
    source, to = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become("elsa")
            client = RawClient(SOCKET)
            client.call(AUTH_LIST)
            for number in range(1, LAST_PROCEDURE + 1):
                if number in (CLOSE, AUTH_LIST, AUTH_POLKIT):  # what anybody may do
                    continue
                try:
                    client.call(number, b"\0" * 64)
                    os.write(to, f"{number} ".encode())
                except RemoteError:
                    pass
                except ConnectionError:  # which is a refusal too
                    client = RawClient(SOCKET)
                    client.call(AUTH_LIST)
            os.write(to, b"all")
        finally:
            os._exit(0)
    os.close(to)
    with os.fdopen(source) as answers:
        served = answers.read().split()
    os.waitpid(child, 0)
    check(served == ["all"], "nothing is served to her before she is known", " ".join(served))


def become(user):
    entry = next(line.split(":") for line in pathlib.Path("/etc/passwd").read_text().splitlines() if line.startswith(user + ":"))
    os.setgroups([])
    os.setgid(int(entry[3]))
    os.setuid(int(entry[2]))


def by_group_and_by_rule():
    shutil.copy(SOURCE / "tools/data/60-virtuserns.rules", RULES)
    did("polkit reads the example", "systemctl", "restart", "polkit.service")
    said = as_user("anna", "start", "web")
    check(said.returncode == 0, "anna, of group libvirt, manages", said.stderr)
    said = as_user("anna", "destroy", "web")
    check(said.returncode == 0, "and ends what she started", said.stderr)
    rule("10-no.rules", DENIAL)
    said = as_user("elsa", "destroy", "web")
    check(said.returncode != 0 and "access denied by policy" in said.stderr, "a rule refuses elsa by name", said.stderr)


def ask_with_the_pid_of(stranger):
    """A process of elsa's connects, leaves its connection to another and ends; then `stranger()` gets its pid. What polkit
    is asked is about the one that connected. Returns what the daemon says."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            become("elsa")
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(SOCKET)
            socket.send_fds(theirs, [b"x"], [connection.fileno()])
            theirs.recv(1)  # until the daemon has seen who connected
        finally:
            os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    client = RawClient.__new__(RawClient)
    client.socket, client.serial = socket.socket(fileno=fds[0]), 0
    client.socket.settimeout(60)
    client.call(AUTH_LIST)
    ours.send(b"x")
    os.waitpid(child, 0)
    process = stranger(child)
    try:
        client.call(AUTH_POLKIT)
        client.call(CONNECT_OPEN, optional_string(URI) + u32(0))
        return "served"
    except RemoteError as reason:
        return str(reason)
    finally:
        client.close()
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def a_root_process_with_pid(wanted):
    for _ in range(50):
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        process = subprocess.Popen(["sleep", "600"])
        if process.pid == wanted:
            return wanted
        process.kill()
        process.wait()
    raise RuntimeError(f"nobody got pid {wanted}")


def whose_pid_is_reused():
    (RULES / "10-no.rules").unlink()
    did("polkit forgets the rule", "systemctl", "restart", "polkit.service")
    said = ask_with_the_pid_of(lambda pid: None)
    check(said.startswith(f"{AUTH_FAILED}: "), "a client that is gone is nobody", said)
    said = ask_with_the_pid_of(a_root_process_with_pid)
    check(said.startswith(f"{AUTH_FAILED}: "), "a process of root's with its pid does not make it root", said)


def without_polkit():
    did("polkit goes away", "systemctl", "mask", "--now", "--runtime", "polkit.service")
    said = as_user("anna", "list")
    check(said.returncode != 0 and "polkit" in said.stderr, "without polkit nobody but root manages", said.stdout + said.stderr)
    said = run("virsh", "-c", URI, "list", "--all")
    check(said.returncode == 0, "root is not asked", said.stderr)
    did("polkit comes back", "systemctl", "unmask", "--runtime", "polkit.service")


def main():
    install()
    ACTIONS.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SOURCE / "tools/data" / ACTIONS.name, ACTIONS)
    did("group libvirt", "groupadd", "--force", "--system", "libvirt")
    for user, groups in (("anna", ["-G", "libvirt"]), ("elsa", [])):
        run("userdel", user)
        did(f"user {user}", "useradd", "--no-create-home", *groups, user)
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text('auth_unix_rw = "polkit"\nauth_unix_ro = "polkit"\n')
    drop_in = pathlib.Path("/etc/systemd/system/virtusernsd.socket.d/polkit.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Socket]\nSocketMode=0666\n")
    try:
        did("the socket is everybody's", "systemctl", "daemon-reload")
        did("stop what runs", "systemctl", "stop", "virtusernsd.service", "virtusernsd.socket", "virtusernsd-ro.socket")
        start_service()
        make_domain()
        RULES.mkdir(parents=True, exist_ok=True)
        nobody_who_was_not_asked()
        nothing_before_it()
        by_group_and_by_rule()
        whose_pid_is_reused()
        without_polkit()
    finally:
        for name in ("60-virtuserns.rules", "10-no.rules"):
            (RULES / name).unlink(missing_ok=True)
        CONFIGURATION.write_text(before)
        shutil.rmtree(drop_in.parent)
        did("systemd forgets the drop-in", "systemctl", "daemon-reload")
        did("the daemon goes", "systemctl", "stop", "virtusernsd.service", "virtusernsd.socket", "virtusernsd-ro.socket")
    check(eventually(lambda: not re.search(r"virtusernsd-sock$", run("ss", "-xl").stdout, re.MULTILINE)), "no socket is left")
    return finish("polkit")


if __name__ == "__main__":
    sys.exit(main())
