#!/usr/bin/env python3
"""A root file system of a user's that is an overlay, over what belongs to the user's ids and over what does not.

    tests/session/overlay.py [-k TEST]
"""
import errno
import os
import pathlib
import stat
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import built, main, test  # noqa: E402
from harness import Skip, check, contains, equal, eventually  # noqa: E402


def lay(*lowers, target="/"):
    text = "".join(f"<userns:lower dir='{lower}'/>" for lower in lowers)
    return (f"<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:overlay target='{target}'>{text}"
            "</userns:overlay></userns:domain></metadata>")


def own(env, user, name="own"):
    """Not in the user's home, a tmpfs here, which has no attributes of users before Linux 6.6."""
    os.chmod(env.folder, 0o711)
    path = pathlib.Path(tempfile.mkdtemp(prefix=user.name, dir=env.folder), name)
    path.mkdir()
    for folder in (path.parent, path):
        os.chown(folder, user.uid, user.uid)
    if not has_user_xattrs(path):
        raise Skip(f"the file system of {path} has no extended attributes of users")
    return path


def has_user_xattrs(path):
    try:
        os.setxattr(path, "user.test", b"")
        os.removexattr(path, "user.test")
    except OSError as error:
        equal(error.errno, errno.EOPNOTSUPP)
        return False
    return True


@test
def a_base_of_the_users_ids(env):
    anna = env.anna
    anna.start_daemon()
    root, written = anna.root("base"), own(env, anna)
    before = {path: os.lstat(path).st_mtime_ns for path in root.rglob("*")}
    anna.start("web", written, extra=lay(root))
    contains(anna.virsh("dumpxml", "web").ok().out, f"target='{anna.first}'")  # the range that the base belongs to
    check("<userns:overlay>" not in anna.virsh("dominfo", "web").ok().out, "messages about it")
    anna.exec("web", "sh", "-c", "set -e; echo kept >/out/kept; busybox rm /bin/ls; busybox chmod 700 /tmp; busybox rmdir /etc; "
              "busybox mkdir /etc; ! test -e /bin/ls").ok()
    controller = anna.controller("web")
    anna.end_daemons()
    anna.start_daemon()
    equal(anna.controller("web"), controller, "it runs on")
    init = anna.init("web")
    anna.virsh("reboot", "web").ok()
    eventually(lambda: anna.init("web") not in (None, init), "another init")
    equal(anna.exec("web", "cat", "/out/kept").ok().out, "kept\n")
    define_again = anna.define("bad", written, extra=lay(root))
    equal(define_again.code, 0, define_again.err)
    # Not even with ids of its own, which would not be those of what is written.
    check(anna.virsh("start", "bad").code != 0, "two domains write to one directory")
    anna.virsh("destroy", "web").ok()
    anna.virsh("start", "web").ok()
    equal(anna.exec("web", "cat", "/out/kept").ok().out, "kept\n")
    anna.virsh("destroy", "web").ok()
    equal({path: os.lstat(path).st_mtime_ns for path in root.rglob("*")}, before, "the base")
    facts = [os.lstat(path) for path in (written, written / "upper", written / "work", written / "upper/out/kept")]
    equal([facts.st_uid for facts in facts], [anna.uid, anna.first, anna.first, anna.first])
    equal([stat.S_IMODE(facts.st_mode) for facts in facts[:3]], [0o700, 0o755, 0o700])
    check(anna.run("rm", "-r", written / "upper").code != 0, "the user could remove it by hand")
    anna.run(built("tools/virt-userns-rootfs"), "remove", written).ok()
    check(not written.exists() and (root / "bin/ls").is_symlink(), "the base goes with what was written")


@test
def what_is_the_hosts_root_s(env):
    """It shows as nobody's, and is not changed. At a target of its own: as a root it would be of little use."""
    anna = env.anna
    anna.start_daemon()
    shared = pathlib.Path("/home/shared")
    shared.mkdir()
    try:
        (shared / "read").write_text("for all\n")
        (shared / "secret").write_text("")
        (shared / "secret").chmod(0o600)
        anna.start("web", anna.root("base"), extra=lay(shared, target="/srv"),
                   devices=f"<filesystem type='mount'><source dir='{own(env, anna)}'/><target dir='/srv'/></filesystem>")
        contains(anna.virsh("dominfo", "web").ok().out, f"'{shared}' belongs to 0:0 and not to the domain's root")
        equal(anna.exec("web", "sh", "-c", "cat /srv/read; cat /srv/secret 2>/dev/null || echo refused; "
                        "(echo x >>/srv/read) 2>/dev/null || echo refused; (busybox chmod 666 /srv/read) 2>/dev/null || echo refused; "
                        "echo mine >/srv/new && cat /srv/new").ok().out, "for all\nrefused\nrefused\nrefused\nmine\n")
        equal((shared / "read").read_text(), "for all\n")
        anna.virsh("destroy", "web").ok()
    finally:
        for path in shared.iterdir():
            path.unlink()
        shared.rmdir()


@test
def a_file_system_without_attributes(env):
    """What a user has deleted could not be marked."""
    anna = env.anna
    anna.start_daemon()
    home = anna.home / "own"
    anna.run("mkdir", home).ok()
    anna.define("web", home, extra=lay(anna.root("base"))).ok()
    if has_user_xattrs(home):
        anna.virsh("start", "web").ok()
        return anna.virsh("destroy", "web").ok()
    contains(anna.virsh("start", "web").fails().err, "has no extended attributes of users")
    return equal(os.listdir(home), [])


@test
def what_is_anothers(env):
    """Directories that the user cannot reach or has no ids for."""
    anna, elsa = env.anna, env.elsa
    for user in (anna, elsa):
        user.start_daemon()
    root, written = anna.root("base"), own(env, anna)
    anna.start("web", written, extra=lay(root))
    anna.virsh("destroy", "web").ok()
    theirs = own(env, elsa)
    elsa.define("bad", theirs, extra=lay(written / "upper")).ok()
    contains(elsa.virsh("start", "bad").fails().err, "Permission denied")  # the directory is anna's alone
    equal(os.listdir(theirs), [])
    elsa.define("worse", written, extra=lay(elsa.root("base"))).ok()
    elsa.virsh("start", "worse").fails()
    equal(sorted(os.listdir(written)), ["upper", "work"])
    # Other ids than it was written with.
    anna.virsh("undefine", "web").ok()
    ids = "".join(f"<{kind} start='0' target='{anna.first + 100_000}' count='65536'/>" for kind in ("uid", "gid"))
    anna.define("web", written, extra=lay(root), idmap=f"<idmap>{ids}</idmap>").ok()
    contains(anna.virsh("start", "web").fails().err, "give the domain the ids that it had")


if __name__ == "__main__":
    main()
