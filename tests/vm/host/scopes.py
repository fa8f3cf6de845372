#!/usr/bin/env python3
"""A domain as a unit of systemd: its scope, what machined says, and what happens to it when units are changed, reloaded,
stopped, and when daemon and controller are killed. One line for each check."""
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (CGROUPS, URI, check, did, eventually, finish, groups_left, groups_of, init_pid,  # noqa: E402
                          install, is_held, make_domain, run, scope_of, show, start_service, virsh)


def controller_pid():
    return int(virsh("domid", "web").stdout.strip() or 0)


def machines():
    return run("machinectl", "list", "--no-legend").stdout


def start():
    did("start it", "virsh", "-c", URI, "start", "web")
    return init_pid()


def is_gone(scope, what):
    check(eventually(lambda: show(scope, "LoadState") == "not-found"), f"{what}: its scope is gone", show(scope, "ActiveState"))
    left = groups_left()
    check(not left, f"{what}: no group is left", str(left))
    check(eventually(lambda: "userns-" not in machines()), f"{what}: machinectl does not list it", machines())
    state = virsh("domstate", "web").stdout.strip()
    check(state == "shut off", f"{what}: it is shut off", state)


def is_a_unit(pid):
    scope = scope_of(pid)
    if not check(scope is not None, "it is in a scope", str(groups_of(pid))):
        return None
    check(show(scope, "ActiveState") == "active", "the scope is active", show(scope, "ActiveState"))
    check(show(scope, "Slice") == "machine.slice", "in machine.slice", show(scope, "Slice"))
    check(show(scope, "Delegate") == "yes", "delegated", show(scope, "Delegate"))
    check(show(scope, "TasksMax") == "infinity", "without a limit of systemd's", show(scope, "TasksMax"))
    check(show(scope, "Description") == "Domain web of virtusernsd", "with a description", show(scope, "Description"))
    is_held(pid, "in the scope")
    ours = groups_of(controller_pid())
    check(all(scope in path for name, path in ours.items() if name in ("", "name=systemd") and path != "/"),
          "the controller is in the scope", str(ours))
    theirs = groups_of(pid)
    shared = [name for name, path in theirs.items()
              if scope in path and (ours[name] == path or ours[name].startswith(path + "/"))]
    check(not shared, "and outside of the container's groups", f"{shared}: {ours}")
    said = run("systemctl", "status", scope).stdout
    check("virtuserns-controller" in said, "systemctl status shows its processes", said)
    return scope


def is_listed(pid):
    check(eventually(lambda: f"userns-{controller_pid()}-web" in machines()), "machinectl lists it", machines())
    name = f"userns-{controller_pid()}-web"
    shown = dict(line.split("=", 1) for line in run("machinectl", "show", name).stdout.splitlines() if "=" in line)
    check(shown.get("Leader") == str(pid), "with its init as leader", str(shown))
    check(shown.get("Class") == "container" and shown.get("Service") == "virtuserns", "as a container of ours", str(shown))
    check(shown.get("Unit") == scope_of(pid), "in its scope", str(shown))
    check(shown.get("RootDirectory") == "/var/lib/web", "with its root", str(shown))


def units_are_changed(pid, scope):
    """Each makes systemd realize groups anew. The domain must stay in its groups, of blkio too, with its limits."""
    for what, argv in {
        "daemon-reload": ["systemctl", "daemon-reload"],
        "daemon-reexec": ["systemctl", "daemon-reexec"],
        "a weight of i/o of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "IOWeight=50"],
        "accounting of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "IOAccounting=yes",
                                        "CPUAccounting=yes", "MemoryAccounting=yes", "TasksAccounting=yes"],
        "no accounting of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "IOAccounting=no",
                                           "CPUAccounting=no", "MemoryAccounting=no", "TasksAccounting=no"],
        "a limit of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "MemoryMax=1G"],
        "a weight of the scope": ["systemctl", "set-property", "--runtime", scope, "CPUWeight=50", "IOWeight=50"],
        "a limit of the scope": ["systemctl", "set-property", "--runtime", scope, "TasksMax=4000"],
        "a neighbour in machine.slice": ["systemd-run", "--scope", "--slice=machine.slice", "-p", "IOWeight=10",
                                         "-p", "BlockIOWeight=10", "true"],
        "a weight of i/o of system.slice": ["systemctl", "set-property", "--runtime", "system.slice", "IOWeight=50"],
        "a second daemon-reload": ["systemctl", "daemon-reload"],
    }.items():
        before = groups_of(pid)
        did(what, *argv)
        is_held(pid, f"after {what}")
        check(groups_of(pid) == before, f"after {what}: in the same groups", f"{before} -> {groups_of(pid)}")


def daemon_is_killed(pid, scope):
    os.kill(int(show("virtusernsd.service", "MainPID")), signal.SIGKILL)
    check(eventually(lambda: init_pid() == pid), "after a kill of the daemon: the same init runs", str(init_pid()))
    check(scope_of(pid) == scope, "in the same scope")
    is_held(pid, "after a kill of the daemon")
    cpu = virsh("domstats", "--cpu-total", "web").stdout
    check("cpu.time=" in cpu, "the next daemon reads its groups", cpu)
    memory = virsh("dommemstat", "web").stdout
    check("rss" in memory, "and its memory", memory)
    did("and changes its limits", "virsh", "-c", URI, "setmem", "web", "100M", "--live")
    did("back", "virsh", "-c", URI, "setmem", "web", "128M", "--live")
    is_listed(pid)


def it_is_suspended(pid):
    did("suspend it", "virsh", "-c", URI, "suspend", "web")
    check(virsh("domstate", "web").stdout.strip() == "paused", "it is paused", virsh("domstate", "web").stdout)
    did("resume it", "virsh", "-c", URI, "resume", "web")
    is_held(pid, "after a pause")


def it_reboots(pid, scope):
    did("reset it", "virsh", "-c", URI, "reset", "web")
    check(eventually(lambda: init_pid() not in (None, pid)), "after a reset: another init runs")
    pid = init_pid()
    check(scope_of(pid) == scope, "in the same scope", str(scope_of(pid)))
    is_held(pid, "after a reset")
    check(eventually(lambda: f"Leader={pid}" in run("machinectl", "show", f"userns-{controller_pid()}-web").stdout),
          "machined knows the new leader")


def it_ends():
    for what, end in {
        "destroy": lambda _: did("destroy it", "virsh", "-c", URI, "destroy", "web"),
        "shutdown": lambda _: did("shut it down", "virsh", "-c", URI, "shutdown", "web"),
        "stop of machine.slice": lambda _: did("stop machine.slice", "systemctl", "stop", "machine.slice"),
        "stop of the scope": lambda scope: did("stop its scope", "systemctl", "stop", scope),
        "kill of the controller": lambda _: os.kill(controller_pid(), signal.SIGKILL),
    }.items():
        pid = start()
        scope = scope_of(pid)
        check(scope is not None, f"{what}: it is in a scope")
        end(scope)
        check(eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists()), f"{what}: its init is gone")
        eventually(lambda: virsh("domstate", "web").stdout.strip() == "shut off")
        is_gone(scope, what)


def daemon_and_controller_are_killed():
    scope = scope_of(start())
    controller = controller_pid()
    daemon = int(show("virtusernsd.service", "MainPID"))
    os.kill(daemon, signal.SIGSTOP)
    os.kill(controller, signal.SIGKILL)
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: virsh("domstate", "web").stdout.strip() == "shut off")
    is_gone(scope, "kill of daemon and controller")


def starts_at_once_after_an_end():
    start()
    for _ in range(5):
        virsh("destroy", "web")
        if not did("start again at once", "virsh", "-c", URI, "start", "web"):
            break
    is_held(init_pid(), "started again at once")
    did("destroy it", "virsh", "-c", URI, "destroy", "web")


def partition_is_a_slice():
    xml = virsh("dumpxml", "--inactive", "web").stdout
    pathlib.Path("/run/web-sliced.xml").write_text(
        xml.replace("</vcpu>", "</vcpu><resource><partition>/machine/a-b</partition></resource>"))
    did("define it in a partition", "virsh", "-c", URI, "define", "/run/web-sliced.xml")
    pid = start()
    scope = scope_of(pid)
    check(scope and show(scope, "Slice") == "machine-a\\x2db.slice", "the partition is a slice", str(groups_of(pid)))
    is_held(pid, "in a partition")
    did("destroy it", "virsh", "-c", URI, "destroy", "web")
    pathlib.Path("/run/web-plain.xml").write_text(xml)
    did("define it as before", "virsh", "-c", URI, "define", "/run/web-plain.xml")


def without_machined():
    did("switch machined off", "systemctl", "mask", "--runtime", "--now", "systemd-machined.service")
    pid = start()
    is_held(pid, "without machined")
    check(scope_of(pid) is not None, "without machined: it has a scope")
    did("destroy it", "virsh", "-c", URI, "destroy", "web")
    did("switch machined on", "systemctl", "unmask", "--runtime", "systemd-machined.service")


def without_the_bus():
    """Then as on a host without systemd."""
    did("stop the bus", "systemctl", "stop", "dbus.socket", "dbus.service")
    pid = start()
    is_held(pid, "without the bus")
    check(pid and scope_of(pid) is None, "without the bus: it has no scope", str(pid and groups_of(pid)))
    did("destroy it", "virsh", "-c", URI, "destroy", "web")
    did("start the bus", "systemctl", "start", "dbus.socket", "dbus.service")
    eventually(lambda: run("busctl", "status").returncode == 0)
    pid = start()
    check(scope_of(pid) is not None, "with the bus again: it has a scope", str(groups_of(pid)))
    did("destroy it", "virsh", "-c", URI, "destroy", "web")


def main():
    install()
    start_service()
    make_domain()
    pid = start()
    scope = is_a_unit(pid)
    if scope:
        is_listed(pid)
        units_are_changed(pid, scope)
        daemon_is_killed(pid, scope)
        it_is_suspended(pid)
        it_reboots(pid, scope)
        did("restart the daemon's service", "systemctl", "restart", "virtusernsd.service")
        check(eventually(lambda: init_pid() is not None), "after a restart of the service it runs")
        did("destroy it", "virsh", "-c", URI, "destroy", "web")
        is_gone(scope, "destroy")
        it_ends()
        daemon_and_controller_are_killed()
        starts_at_once_after_an_end()
        partition_is_a_slice()
        without_machined()
        without_the_bus()
        left = groups_left()
        check(not left, "no group is left", str(left))
        folders = [str(path) for path in CGROUPS.rglob("machine.slice/*")
                   if path.is_dir() and not path.name.endswith(".slice")]
        check(not folders, "nothing is left in machine.slice", str(folders))
    return finish("scopes")


if __name__ == "__main__":
    sys.exit(main())
