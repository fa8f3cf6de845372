#!/usr/bin/env python3
"""Rows T9, T11 and T50 of the talk: container root of anna's, capability by capability and probe by probe, against anna herself on
the host; and how deep namespaces go.

    tests/session/compared.py [-k TEST]
"""
import errno
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import built, main, test  # noqa: E402
from harness import check, equal  # noqa: E402

ALL_CAPABILITIES = "<features><capabilities policy='allow'/></features>"


def verdicts(said):
    """{probe: outcome} of lines "CLASS NAME OUTCOME DETAIL"."""
    return {line.split()[1]: line.split()[2] for line in said.out.splitlines() if len(line.split()) > 2}


@test
def T09_as_safe_as_an_unprivileged_user(env):
    """Each probe by container root and by anna on the host: root of her container gets nothing that she has not."""
    anna = env.anna
    probes = built("tools/drill/virtuserns-drill")
    root = anna.root("web")
    shutil.copy(probes, root / "bin/probes")
    anna.start_daemon()
    anna.start("web", root)
    inside = verdicts(anna.exec("web", "/bin/probes", timeout_s=120))
    # As she is, and as root of namespaces of her own, which every user may make.
    plain, unshared = (verdicts(anna.run(*words, probes, timeout_s=120)) for words in ((), ("unshare", "-UrmnpifC", "--mount-proc")))
    equal((set(plain), set(unshared)), (set(inside),) * 2, "probes")
    outside = {name: "failed" if "failed" in (plain[name], unshared[name]) else plain[name] for name in plain}
    check(len(inside) > 150, f"{len(inside)} probes")
    more = {name for name, outcome in inside.items() if outcome == "failed" and outside[name] != "failed"}
    equal(more, set(), "what container root can do and anna cannot")
    less = [name for name, outcome in outside.items() if outcome == "failed" and inside[name] == "held"]
    # Or the probes see nothing where nothing is in the way.
    check(len(less) > 20, f"anna alone can do {less}")
    print(f"of {len(inside)} probes anna on the host fails {list(outside.values()).count('failed')}, root of her container "
          f"{list(inside.values()).count('failed')}")


# As whoever runs it: the number of nested user namespaces that can be made, and the errno of the next.
NESTED = r"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
made, uid, gid = 0, os.getuid(), os.getgid()
while libc.unshare(0x10000000) == 0 and made < 100:
    made += 1
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        open(f"/proc/self/{file}", "w").write(text)
    uid = gid = 0
print(made, ctypes.get_errno())
"""


@test
def T11_nesting_ends_at_the_kernels_limit(env):
    """Levels 0 to 32 may have children: the 33rd below the host's is the last, on this and every kernel since 3.11."""
    made, code = map(int, env.anna.python(NESTED).ok().out.split())
    equal((made, errno.errorcode[code]), (33, "ENOSPC"))


@test
def T50_none_of_the_capabilities_reaches_the_host(env):
    """A line for each: root of a container has all 41, uses it on something of the host's, and is refused; or what it is good for
    is the container's own."""
    anna = env.anna
    program = built("tests/session/capabilities")
    root = anna.root("web")
    shutil.copy(program, root / "bin/capabilities")
    data = anna.home / "data"
    anna.run("sh", "-c", f"mkdir {data}; echo x >{data}/secret; chmod 600 {data}/secret; chmod 755 {data}").ok()
    anna.start_daemon()
    shared = f"<filesystem type='mount'><source dir='{data}'/><target dir='/data'/></filesystem>"
    anna.start("web", root, extra=ALL_CAPABILITIES, devices=shared)
    # As init has them all, so has a command of its root.
    status = pathlib.Path(f"/proc/{anna.init('web')}/status").read_text()
    last = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())
    equal(int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16), (1 << last + 1) - 1)
    before = (data / "secret").stat()
    victim = subprocess.Popen(["sleep", "60"])
    try:
        said = anna.exec("web", "/bin/capabilities", str(victim.pid)).ok().out
        equal(victim.poll(), None, "a process of the host")
    finally:
        victim.kill()
        victim.wait()
    lines = dict(line.split(" ", 1) for line in said.splitlines())
    equal(len(lines), 41, "capabilities")
    reached = {name: text for name, text in lines.items() if not text.startswith(("refused ", "own "))}
    equal(reached, {}, said)
    check(sum(text.startswith("refused ") for text in lines.values()) >= 33, said)
    after = (data / "secret").stat()
    equal((after.st_mode, after.st_uid, after.st_mtime_ns), (before.st_mode, before.st_uid, before.st_mtime_ns))
    print(said, end="")


if __name__ == "__main__":
    main()
