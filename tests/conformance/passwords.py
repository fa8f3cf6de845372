"""virsh set-user-password: in the container's own /etc/shadow, whatever the container has made of that."""
import contextlib
import os
import pathlib
import signal
import stat
import subprocess
import threading
import warnings

from harness import check, contains, equal, eventually, main, test
from image_files import USERNS, controller, define, directory, init_of, sh, tree

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

SECRET = "not-to-be-found-anywhere"
LINES = "root:*:19000:0:99999:7:::\nanna:!:19000:0:99999:7:::\n"


def begin(env, name="web", shadow=LINES):
    root = pathlib.Path(tree(env))
    for applet in ("rm", "mv", "mkfifo", "ln", "chmod", "flock", "mount"):
        with contextlib.suppress(FileExistsError):
            (root / "bin" / applet).symlink_to("busybox")
    if shadow is not None:
        (root / "etc/shadow").write_text(shadow)
        (root / "etc/shadow").chmod(0o640)
        os.chown(root / "etc/shadow", 0, 42)
    define(env, name, directory(root))
    env.virsh("start", name).ok()
    return root / "etc"


def set_password(env, user="root", password=SECRET, *more):
    return env.virsh("set-user-password", "web", user, password, *more)


def fields(etc, user):
    return next(line.split(":") for line in (etc / "shadow").read_text().splitlines() if line.startswith(user + ":"))


def leftovers(etc):
    return sorted(path.name for path in etc.iterdir() if path.name not in ("shadow", ".pwd.lock"))


@test(drivers=USERNS)
def it_is_set(env):
    etc = begin(env)
    before = fields(etc, "anna")
    set_password(env).ok()
    name, made, day, *rest = fields(etc, "root")
    check(made.startswith("$6$") and crypt.crypt(SECRET, made) == made, f"{made} is no hash of the password")
    check(int(day) > 20000 and rest == before[3:], f"the rest of the line: {day} {rest}")
    equal(fields(etc, "anna"), before)
    facts = os.stat(etc / "shadow")
    equal((facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)), (0, 42, 0o640), "owner and mode, as on disk")
    equal(leftovers(etc), [])
    # Seen inside, also while it stands still.
    contains(sh(env, "web", "cat /etc/shadow"), made)
    env.virsh("suspend", "web").ok()
    set_password(env, "anna", "$6$salt$hash", "--encrypted").ok()
    env.virsh("resume", "web").ok()
    equal(fields(etc, "anna")[1], "$6$salt$hash")


@test(drivers=USERNS)
def nobody_is_told_the_password(env):
    etc = begin(env)
    set_password(env).ok()
    set_password(env, "nobody-of-this-name").fails()
    logs = [env.daemon.log_text(1000)] + [path.read_text() for path in pathlib.Path("/var/log/libvirt/userns").glob("*.log")]
    check(any("password of user 'root' was set" in text for text in logs), "that it was set is in the domain's log")
    made = fields(etc, "root")[1].split("$")[-1]
    for text in logs:
        check(SECRET not in text and made not in text, "the password or its hash is in a log")
    check(SECRET not in (etc / "shadow").read_text(), "the password itself is in the file")


@test(drivers=USERNS)
def what_is_wrong_is_said(env):
    import libvirt
    etc = begin(env)
    set_password(env, "elsa").fails("no user 'elsa'")
    set_password(env, "a:b").fails("no name of an account")
    set_password(env, "root", "a:b", "--encrypted").fails("what crypt(3) makes")
    set_password(env, "root", "two\nlines").fails("no end of line")
    equal((etc / "shadow").read_text(), LINES)
    domain = env.open().lookupByName("web")
    for flags, code in ((2, libvirt.VIR_ERR_INVALID_ARG), (0, None)):
        try:
            domain.setUserPassword("root", "x", flags)
            equal(code, None)
        except libvirt.libvirtError as error:
            equal(error.get_error_code(), code)
    env.virsh("set-user-password", "web", "root", "x", read_only=True).fails("read only access prevents virDomainSetUserPassword")
    (etc / "shadow").unlink()
    set_password(env).fails("no /etc/shadow")
    check(not (etc / "shadow").exists(), "it was made")
    env.virsh("destroy", "web").ok()
    set_password(env).fails("domain is not running")
    try:
        domain.setUserPassword("root", "x", 0)
        check(False, "of a domain that is off")
    except libvirt.libvirtError as error:
        equal(error.get_error_code(), libvirt.VIR_ERR_OPERATION_INVALID)


@test(drivers=USERNS)
def hostile_files(env):
    """Each is refused in words, and nothing of the host's is touched; then it works again."""
    etc = begin(env)
    outside = pathlib.Path(env.folder, "outside")
    outside.write_text(LINES)
    saved = (etc / "shadow").read_bytes()

    def refused(what, script, *words):
        sh(env, "web", f"rm -rf /etc/shadow; {script}")
        result = set_password(env).fails(*words)
        check(SECRET not in result.err, what)
        equal([name for name in leftovers(etc) if name.startswith("shadow.")], [], what)
        equal(env.state("web")[0], "running", what)

    refused("a fifo", "mkfifo /etc/shadow", "/etc/shadow of the container")
    refused("a loop", "ln -s shadow /etc/shadow", "/etc/shadow of the container")
    refused("a link to the host", f"ln -s {outside} /etc/shadow", "/etc/shadow of the container")
    refused("a device", "ln /dev/null /etc/shadow 2>/dev/null || { touch /etc/shadow; mount --bind /dev/null /etc/shadow; }",
            "/etc/shadow of the container")
    sh(env, "web", "umount /etc/shadow 2>/dev/null; mount -t tmpfs t /tmp", fails=True)
    refused("a long one", "dd if=/dev/zero of=/etc/shadow bs=1M count=2 2>/dev/null", "/etc/shadow of the container")
    refused("a hole of a terabyte", "dd if=/dev/zero of=/etc/shadow bs=1 count=1 seek=1000000000000 2>/dev/null",
            "/etc/shadow of the container")
    refused("a directory", "mkdir /etc/shadow", "/etc/shadow of the container")
    refused("a lock that is a fifo", f"rm -f /etc/.pwd.lock; mkfifo /etc/.pwd.lock; echo root:x:1 >/etc/shadow",
            "/etc/.pwd.lock of the container")
    refused("a lock that leads outside", f"rm -f /etc/.pwd.lock; ln -s {outside}.lock /etc/.pwd.lock; echo root:x:1 >/etc/shadow",
            "/etc/.pwd.lock of the container")
    check(not pathlib.Path(f"{outside}.lock").exists(), "a file of the host's was made")
    equal(outside.read_text(), LINES)
    sh(env, "web", "rm -rf /etc/.pwd.lock /etc/shadow; mkdir /etc/shadow.userns-new")
    (etc / "shadow").write_bytes(saved)
    set_password(env).fails("new /etc/shadow of the container")
    sh(env, "web", "rm -rf /etc/shadow.userns-new")
    set_password(env).ok()


@test(drivers=USERNS)
def an_etc_that_leads_elsewhere(env):
    """It leads elsewhere in the container."""
    etc = begin(env)
    place = pathlib.Path(env.folder, "of-the-host")
    place.mkdir()
    (place / "shadow").write_text(LINES)
    sh(env, "web", f"mv /etc /real && ln -s ../../../../../../..{place} /etc")
    set_password(env).fails("no /etc/shadow")
    equal((place / "shadow").read_text(), LINES)
    sh(env, "web", "rm /etc && ln -s ../../../real /etc")
    set_password(env).ok()
    equal(fields(etc.parent / "real", "root")[1][:3], "$6$")


@contextlib.contextmanager
def lock_kept(etc):
    """By a program that has it as lckpwdf(3) has."""
    holder = subprocess.Popen(["/usr/bin/python3", "-c", "import fcntl, sys, time\nf = open(sys.argv[1], 'w')\n"
                               "fcntl.lockf(f, fcntl.LOCK_EX)\nprint('has it', flush=True)\ntime.sleep(1000)",
                               str(etc / ".pwd.lock")], stdout=subprocess.PIPE, text=True)
    try:
        equal(holder.stdout.readline(), "has it\n")
        yield
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@test(drivers=USERNS)
def a_lock_that_is_kept(env):
    """Waited for, and then said; the domain runs on."""
    etc = begin(env)
    init = init_of(env, "web")
    with lock_kept(etc):
        set_password(env).fails("keeps its passwords locked")
        equal((etc / "shadow").read_text(), LINES)
    set_password(env).ok()
    equal(init_of(env, "web"), init)


@test(drivers=USERNS)
def one_that_changes_all_the_time(env):
    """It is set or it is refused; whatever the container reads is whole, and nothing stays behind."""
    etc = begin(env)
    sh(env, "web", "(while :; do cp /etc/shadow /etc/mine; echo x:y:1 >>/etc/mine; mv /etc/mine /etc/shadow; "
                   "echo root:z:1 >/etc/other; mv /etc/other /etc/shadow; done) >/dev/null 2>&1 </dev/null &")
    verdicts = {set_password(env).code for _ in range(20)}
    check(verdicts <= {0, 1}, f"{verdicts}")
    equal([name for name in leftovers(etc) if name.startswith("shadow.")], [])
    env.virsh("domstate", "web").ok()


def children(pid):
    with contextlib.suppress(OSError):
        return list(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


@test(drivers=USERNS)
def killed_on_its_way(env):
    """The process that goes inside, and the daemon, while they wait for the lock: nothing has changed, and the next one is set.
    At each of their calls: fault kill_at_syscall."""
    etc = begin(env)
    init = init_of(env, "web")
    stem = next(pid for pid in children(controller(env, "web")) if pid != init)
    results = []
    for victim in ("errand", "daemon"):
        with lock_kept(etc):
            asker = threading.Thread(target=lambda: results.append(set_password(env)))
            asker.start()
            errand = eventually(lambda: children(stem), "somebody goes inside")[0]
            if victim == "errand":
                os.kill(errand, signal.SIGKILL)
            else:
                env.daemon.kill()
            asker.join()
        equal(results.pop().code, 1)
        if victim == "daemon":
            env.daemon.start()
            eventually(lambda: not children(stem), "what the daemon had asked for is over")
        else:
            equal((etc / "shadow").read_text(), LINES)
    set_password(env, "anna").ok()
    equal(leftovers(etc), [])
    equal(init_of(env, "web"), init)


if __name__ == "__main__":
    main()
