"""The harness judged: host_state sees every kind of leftover, and a check that should fail does."""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_state  # noqa: E402


def difference(act, undo=lambda _: None, **how):
    """What host_state says after `act`."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "kept").write_text("1")
        look = lambda: host_state.snapshot([folder], "virtuserns-self-check", [folder])  # noqa: E731
        before = look()
        act(folder)
        lines = host_state.differences(before, look(), **how)
        undo(folder)
        return [line.replace(folder, "@") for line in lines]


def nothing_is_no_difference():
    harness.equal(difference(lambda _: subprocess.run(["true"])), [])


def an_orphaned_daemon_is_seen():
    # It leaves its parent, session and terminal, as daemons do; only a subreaper still finds it.
    def act(_):
        subprocess.run(["sh", "-c", "setsid sleep 77 >/dev/null 2>&1 &"])
        time.sleep(0.2)
    (line,) = difference(act)
    harness.matches(line, r"^process left: \d+ sleep 77$")
    os.kill(int(line.split()[2]), 9)


def a_zombie_is_no_process():
    def act(_):
        subprocess.run(["sh", "-c", "sleep 0 &"])
        time.sleep(0.2)
    harness.equal(difference(act), [])


def a_mount_is_seen():
    lines = difference(lambda folder: (os.mkdir(f"{folder}/m"), subprocess.run(["mount", "-t", "tmpfs", "t", f"{folder}/m"], check=True)),
                       lambda folder: subprocess.run(["umount", f"{folder}/m"]))
    harness.check(any(line.startswith("mount left: ") and line.endswith("@/m") for line in lines), str(lines))


def a_link_is_seen():
    def act(_):
        subprocess.run(["ip", "link", "add", "selfcheck0", "type", "bridge"], check=True)
    if subprocess.run(["ip", "link", "add", "selfcheck1", "type", "bridge"], capture_output=True).returncode != 0:
        raise harness.Skip("this kernel has no bridges")
    harness.equal(difference(act, lambda _: subprocess.run(["ip", "link", "del", "selfcheck0"])), ["link left: selfcheck0"])
    subprocess.run(["ip", "link", "del", "selfcheck1"])


def files_are_seen():
    def act(folder):
        pathlib.Path(folder, "kept").write_text("2")
        pathlib.Path(folder, "lease").write_text("x")
        pathlib.Path(folder, "page.log").write_text("x")
    harness.equal(difference(act, ignore_files=r"\.log$"), ["file changed: @/kept", "file left: @/lease"])
    harness.equal(difference(lambda folder: os.unlink(f"{folder}/kept")), ["file gone: @/kept"])


def the_run_directories_are_private():
    for folder in daemon_module.PRIVATE_FOLDERS:
        harness.equal(os.listdir(folder), [], folder)
        pathlib.Path(folder, "mark").write_text("x")
        # As the rest of the machine sees it: through the root of a process of its own mount namespace.
        harness.check(not os.path.exists(f"/proc/{os.getppid()}/root{folder}/mark"), f"{folder} is the machine's")


def checks_that_should_fail_do():
    for claim in (lambda: harness.equal(1, 2), lambda: harness.contains("abc", "x"), lambda: harness.check(False),
                  lambda: harness.matches("abc", "^x"), lambda: harness.eventually(lambda: False, "never", 0.1)):
        with contextlib.suppress(harness.Failure):
            claim()
            raise AssertionError("a false claim passed")


def main():
    try:
        host_state.become_subreaper()
        daemon_module.enter_private_namespaces()
    except (daemon_module.NotPossible, subprocess.CalledProcessError) as reason:
        print(f"skipped: {reason}")
        return 77
    failed = 0
    for function in (nothing_is_no_difference, an_orphaned_daemon_is_seen, a_zombie_is_no_process, a_mount_is_seen, a_link_is_seen,
                     files_are_seen, the_run_directories_are_private, checks_that_should_fail_do):
        try:
            function()
            print(f"ok   self_check.{function.__name__}")
        except harness.Skip as reason:
            print(f"skip self_check.{function.__name__}: {reason}")
        except Exception as failure:  # noqa: BLE001
            failed += 1
            print(f"FAIL self_check.{function.__name__}: {failure!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
