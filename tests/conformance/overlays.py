"""Root file systems that are overlays: one base for domains with ids of their own, what each has written for itself; and what
becomes of them when something is wrong, is shared, or dies."""
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import stat
import struct
import subprocess

from harness import check, contains, daemon_module, equal, eventually, main, test
from image_files import USERNS, controller, define, directory as filesystem, init_of, reboot, sh, tree

NET_BIND_SERVICE = 1 << 10


def test_of_overlays(function):
    """In a folder of its own, `env.place`."""
    @functools.wraps(function)
    def in_its_place(env):
        env.place = pathlib.Path(env.folder, function.__name__)
        env.place.mkdir()
        function(env)
    return test(drivers=USERNS)(in_its_place)


def overlay(*lowers, target="/"):
    text = "".join(f"<userns:lower dir='{lower}'/>" for lower in lowers)
    return f"<userns:overlay target='{target}'>{text}</userns:overlay>"


def folder(env, name, mode=0o755):
    path = env.place / name
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


def base(env, name="base"):
    """A root file system with what a copy can lose: owners, modes, file capabilities."""
    root = pathlib.Path(tree(env)).rename(env.place / name)
    for applet in ("chmod", "rm", "mv", "mknod", "rmdir", "chown"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/secret").write_text("of root\n")
    (root / "etc/secret").chmod(0o600)
    (root / "etc/shared").write_text("of the base\n")
    (root / "etc/of-user").write_text("")
    os.chown(root / "etc/of-user", 1000, 1001)
    (root / "etc/unmapped").write_text("of nobody here\n")
    os.chown(root / "etc/unmapped", 4_000_000_000, 4_000_000_000)
    (root / "special").mkdir()
    euid = pathlib.Path(env.daemon.build, "tests/session/euid")
    shutil.copy(euid, root / "special/euid")
    (root / "special/euid").chmod(0o4755)
    shutil.copy(root / "bin/busybox", root / "special/grep")
    os.setxattr(root / "special/grep", "security.capability",
                struct.pack("<IIIII", 0x02000001, NET_BIND_SERVICE, 0, 0, 0))  # version 2, effective
    (root / "special/of-tty").write_text("")
    os.chown(root / "special/of-tty", 0, 5)
    (root / "special/of-tty").chmod(0o2755)
    (root / "folder/below").mkdir(parents=True)
    (root / "folder/below/file").write_text("deep\n")
    return root


def fingerprint(root):
    def of(path):
        facts = os.lstat(path)
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        marks = sorted((name, os.getxattr(path, name)) for name in os.listxattr(path, follow_symlinks=False)) if content else []
        return (str(path.relative_to(root)), facts.st_mode, facts.st_uid, facts.st_gid, facts.st_nlink, facts.st_mtime_ns,
                facts.st_ctime_ns, hashlib.sha256(content).hexdigest(), marks)
    return sorted(of(path) for path in [root, *root.rglob("*")])


def start(env, name, own, *lowers, more=""):
    define(env, name, filesystem(own, more=more), parts=overlay(*lowers))
    env.virsh("start", name).ok()


def refused(env, *parts, name="bad"):
    result = env.virsh("start", name).fails(*parts)
    equal(env.virsh("domstate", name).ok().out.strip(), "shut off")
    check("\n" not in result.err.strip().replace("error: Failed to start domain 'bad'\nerror: ", ""), f"one line: {result.err!r}")
    return result.err


def as_user(env, name, *words):
    program = os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")
    result = subprocess.run([program, "-c", env.uri, name, "-u", "+1000:+1000", "--", *words], capture_output=True, text=True,
                            timeout=60 * daemon_module.TIME_FACTOR, check=False)
    equal(result.returncode, 0, f"{words}: {result.stdout}{result.stderr}")
    return result.stdout.strip()


@test_of_overlays
def one_base_for_domains_with_ids_of_their_own(env):
    root = base(env)
    before = fingerprint(root)
    owns = [folder(env, name) for name in ("own1", "own2")]
    names = ("one", "two")
    for name, own in zip(names, owns):
        start(env, name, own, root)
    maps = [pathlib.Path(f"/proc/{init_of(env, name)}/uid_map").read_text().split()[1] for name in names]
    check(maps[0] != maps[1], f"both have the ids from {maps[0]}")
    for name in names:
        equal(sh(env, name, "stat -c '%u:%g %a' / /etc/secret /etc/of-user /etc/unmapped /special/of-tty").split("\n")[:5],
              ["0:0 755", "0:0 600", "1000:1001 644", "65534:65534 644", "0:5 2755"])
        equal(sh(env, name, "cat /etc/secret /etc/unmapped"), "of root\nof nobody here\n")
        equal(as_user(env, name, "/special/euid"), "1000 0", "set-user-id")
        equal(int(as_user(env, name, "/special/grep", "CapEff", "/proc/self/status").split()[1], 16), NET_BIND_SERVICE)
        options = sh(env, name, "grep ' / overlay ' /proc/mounts").split()[3].split(",")
        for word in ("rw", "nodev"):
            check(word in options, f"{word}: {options}")
        for word in ("nosuid", "metacopy=on", "index=on", "userxattr", "redirect_dir=on", "redirect_dir=follow"):
            check(word not in options, f"{word}: {options}")
        # Whoever is not mapped stays so, and what is not the domain's is not changed.
        sh(env, name, "! chown 0:0 /etc/unmapped 2>/dev/null && ! echo x 2>/dev/null >>/etc/unmapped")
    sh(env, "one", "set -e; echo one >/etc/shared; rm /etc/of-user; rm -r /folder; mkdir /folder; echo new >/folder/new; "
       "touch /special/euid /special/grep /special/of-tty /made; chown 0:5 /made; chmod 2750 /made; "
       "mknod /null c 1 3 2>/dev/null || test ! -e /null")
    equal(sh(env, "one", "cat /etc/shared; ls /folder; stat -c '%u:%g %a' /special/of-tty /made"),
          "one\nnew\n0:5 2755\n0:5 2750\n")
    for name in ("euid", "grep", "of-tty"):
        check((owns[0] / "upper/special" / name).is_file(), f"{name} was not copied")
    equal(as_user(env, "one", "/special/euid"), "1000 0", "set-user-id of a copy")
    equal(int(as_user(env, "one", "/special/grep", "CapEff", "/proc/self/status").split()[1], 16), NET_BIND_SERVICE, "of a copy")
    # As setcap(8) inside: a capability of the domain's root and nobody else's.
    new = f"/proc/{init_of(env, 'one')}/root/special/of-tty"
    os.setxattr(new, "security.capability", struct.pack("<IIIIII", 0x03000001, NET_BIND_SERVICE, 0, 0, 0, int(maps[0])))
    equal(sh(env, "two", "cat /etc/shared /folder/below/file; stat -c %u /etc/of-user; ls / | grep -c new || true"),
          "of the base\ndeep\n1000\n0\n")
    for name in names:
        env.virsh("destroy", name).ok()
    equal(fingerprint(root), before, "the base")
    own = owns[0]
    equal([(oct(stat.S_IMODE(os.lstat(path).st_mode)), os.lstat(path).st_uid) for path in (own, own / "upper", own / "work")],
          [("0o700", 0), ("0o755", 0), ("0o700", 0)])
    equal(sorted(os.listdir(own)), ["upper", "work"])
    equal((own / "upper/etc/shared").read_text(), "one\n")
    gone = os.lstat(own / "upper/etc/of-user")
    check(stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0, "a mark of what is gone")


@test_of_overlays
def its_life(env):
    """Reboot, the daemon's death, suspend, statistics, another start: what was written stays, nothing of a start is left."""
    root, own = base(env), folder(env, "own")
    start(env, "web", own, root)
    sh(env, "web", "echo kept >/kept")
    mounts = pathlib.Path(f"/proc/{controller(env, 'web')}/mountinfo").read_text()
    check("layer" not in mounts, f"places of layers are left: {mounts}")
    for _ in range(2):
        reboot(env, "web")
        equal(sh(env, "web", "cat /kept; echo more >>/more; cat /etc/shared"), "kept\nof the base\n")
    env.daemon.kill()
    env.daemon.start()
    eventually(lambda: env.state("web")[0] == "running", "the next daemon finds it")
    equal(sh(env, "web", "cat /more"), "more\nmore\n")
    env.virsh("suspend", "web").ok()
    env.virsh("resume", "web").ok()
    contains(env.virsh("domstats", "web").ok().out, "state.state=1")
    contains(env.virsh("dumpxml", "web").ok().out, f'<userns:lower dir="{root}"/>')
    check("overlay" not in env.virsh("dominfo", "web").ok().out, "messages about it")
    for _ in range(2):
        env.virsh("destroy", "web").ok()
        own.chmod(0o755)
        (own / "work").chmod(0o755)
        env.virsh("start", "web").ok()
        equal([stat.S_IMODE(os.lstat(path).st_mode) for path in (own, own / "work")], [0o700] * 2, "the wall around it")
        equal(sh(env, "web", "cat /kept /more"), "kept\nmore\nmore\n")
    os.kill(controller(env, "web"), signal.SIGKILL)
    eventually(lambda: env.state("web") == ("shut off", "crashed"), "it has died with its controller")
    env.virsh("start", "web").ok()
    equal(sh(env, "web", "cat /kept"), "kept\n")
    env.virsh("destroy", "web").ok()
    env.virsh("undefine", "web").ok()
    check((own / "upper/kept").exists() and (root / "etc/shared").exists(), "undefine takes no files")


@test_of_overlays
def attached_and_detached(env):
    """To the definition, as devices are; the element is there before, and without the device it is told that it has no effect."""
    device = env.write_xml(filesystem(folder(env, "own"), "/srv/data"))
    define(env, "web", filesystem(env.root_tree()), parts=overlay(base(env), target="/srv/data"))
    for verb, is_there in (("attach-device", True), ("detach-device", False)):
        env.virsh(verb, "web", device, "--config").ok()
        env.virsh("start", "web").ok()
        seen = sh(env, "web", "cat /srv/data/etc/secret", fails=True)
        equal(seen, "of root\n" if is_there else "", verb)
        equal("<userns:overlay> '/srv/data' has no effect" in env.virsh("dominfo", "web").ok().out, not is_there, verb)
        env.virsh("destroy", "web").ok()


@test_of_overlays
def explain_says_what_happens(env):
    name = f"overlay-{os.getpid()}"  # others on this machine run domains too
    start(env, name, folder(env, "own"), base(env))
    program = os.path.join(env.daemon.build, "tools", "showinfo", "virt-userns-showinfo")
    for path, access, command in (("/etc/secret", "r", "cat /etc/secret"), ("/etc/unmapped", "r", "cat /etc/unmapped"),
                                  ("/etc/unmapped", "w", ": >>/etc/unmapped"), ("/etc/shared", "w", ": >>/etc/shared")):
        works = "ok" in sh(env, name, f"({command}) >/dev/null 2>&1 && echo ok", fails=True)
        done = subprocess.run([program, "--json", "--access", access, "explain", name, "open", path], capture_output=True, text=True,
                              check=False)
        equal(json.loads(done.stdout)["answer"], "may" if works else "may not", f"{access} {path}: {done.stdout}")
        equal(works, (path, access) != ("/etc/unmapped", "w"), f"{access} {path}")


@test_of_overlays
def no_wall_is_missing(env):
    """What virt-userns-drill finds of a domain with an overlay as its root."""
    start(env, "web", folder(env, "own"), base(env))
    folder_of_it = os.path.join(env.daemon.build, "tools", "drill")
    done = subprocess.run([f"{folder_of_it}/virt-userns-drill", "--probes", f"{folder_of_it}/virtuserns-drill", "-c", env.uri, "web"],
                          capture_output=True, text=True, timeout=60 * daemon_module.TIME_FACTOR, check=False)
    equal(done.returncode, 0, f"{done.stdout}{done.stderr}")
    contains(done.stdout, "ISOLATED")


@test_of_overlays
def layers_and_their_names(env):
    root = base(env)
    top, middle = folder(env, "a, b:c\\d"), folder(env, "a,b")
    (top / "etc").mkdir()
    (top / "etc/shared").write_text("of the top\n")
    for layer in (top, middle):
        (layer / "layer").write_text(f"{layer.name}\n")
    (middle / "middle").write_text("")
    own = folder(env, "own,:\\ x")
    link = env.place / "current"
    link.symlink_to(root)
    many = [folder(env, f"m/{number}") for number in range(29)]
    start(env, "web", own, top, middle, link, *many)
    equal(sh(env, "web", "cat /etc/shared /layer; ls /middle /etc/secret"), f"of the top\n{top.name}\n/etc/secret\n/middle\n")
    env.virsh("destroy", "web").ok()
    # At another target, beside a root that is none; read-only as it is.
    define(env, "beside", filesystem(env.root_tree()), filesystem(folder(env, "own2"), "/srv/data", "<readonly/>"),
           parts=overlay(root, target="/srv/data"))
    env.virsh("start", "beside").ok()
    equal(sh(env, "beside", "cat /srv/data/etc/secret; echo x 2>/dev/null >/srv/data/x || echo refused"), "of root\nrefused\n")
    env.virsh("destroy", "beside").ok()
    xml = env.write_xml(env.domain_xml("odd", top="<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>"
                                       f"{overlay('/srv/a&#10;b')}</userns:domain></metadata>"))
    env.virsh("define", xml).fails("control character")
    xml = env.write_xml(env.domain_xml("odd", top="<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>"
                                       f"{overlay(*[f'/srv/{number}' for number in range(33)])}</userns:domain></metadata>"))
    env.virsh("define", xml).fails("33 directories below: at most 32")


@test_of_overlays
def what_is_wrong_is_said(env):
    root = base(env)
    before = fingerprint(root)
    file = env.place / "file"
    file.write_text("")
    inside = env.place / "inside"
    inside.symlink_to(root / "etc")

    def left(own):
        return [oct(own.stat().st_mode), *sorted(str(path) for path in own.rglob("*"))]

    def case(name, *parts, lowers=(root,), prepare=lambda own: None):
        own = folder(env, name)
        prepare(own)
        there = left(own)
        define(env, "bad", filesystem(own), parts=overlay(*lowers))
        refused(env, *parts)
        equal(left(own), there, f"{name}: left behind")

    def link(place):
        return lambda own: (own / place).symlink_to("/etc")

    def write(place):
        return lambda own: (own / place).write_text("")

    def foreign_work(own):
        (own / "work").mkdir()
        (own / "work/thesis.tex").write_text("")

    def work_of_another(own):
        (own / "work").mkdir(0o700)
        os.chown(own / "work", 12345, 12345)

    case("missing", f"<userns:lower> '{env.place}/none'", "No such file", lowers=(env.place / "none",))
    case("file-below", f"<userns:lower> '{file}'", "is no directory", lowers=(file,))
    host = env.place / "all"
    host.symlink_to("/")
    case("host", "is the host's own root directory", lowers=(host,))
    case("within", "in one another", lowers=(root, inside))
    case("upper-link", "'upper' is a symbolic link, which is not followed", prepare=link("upper"))
    case("work-link", "'work' is a symbolic link, which is not followed", prepare=link("work"))
    case("upper-file", "'upper' is no directory", prepare=write("upper"))
    case("work-file", "'work' is no directory", prepare=write("work"))
    case("work-full", "'work' holds 'thesis.tex'", "empty it", prepare=foreign_work)
    case("foreign", "belongs to user 12345", "chown it to root", prepare=lambda own: os.chown(own, 12345, 12345))
    case("upper-alone", "it has 'upper' and no 'work'", "make an empty one with mode 0700", prepare=lambda own: (own / "upper").mkdir())
    for name in ("upper/sub", "work"):
        folder(env, f"of-another/{name}")
    case("inside-upper", f"lower '{env.place}/of-another/upper/sub'", "it is in 'upper' of an overlay",
         lowers=(env.place / "of-another/upper/sub",))
    case("work-foreign", "'work' belongs to 12345:12345", "remove it", prepare=work_of_another)
    define(env, "bad", filesystem(file), parts=overlay(root))
    refused(env, f"'{file}'", "is no directory")
    define(env, "bad", filesystem(env.place / "nowhere"), parts=overlay(root))
    refused(env, f"{env.place}/nowhere", "No such file")
    equal(fingerprint(root), before, "the base")
    # Of a start that was killed.
    for number, left_over in enumerate(((".work.new",), ("work",), ("work", ".upper.new"))):
        good = folder(env, f"good{number}")
        for name in left_over:
            (good / name).mkdir(0o700)
        start(env, f"web{number}", good, root)
        equal(sorted(os.listdir(good)), ["upper", "work"])


@test_of_overlays
def on_a_file_system_that_cannot(env):
    """What is written on a read-only file system, or on an overlay."""
    root, own, place = base(env), folder(env, "own"), folder(env, "place")
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        (place / "own").mkdir()
        define(env, "bad", filesystem(place / "own"), parts=overlay(root))
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        refused(env, f"'{place}/own'", "Read-only file system")
    finally:
        subprocess.run(["umount", place], check=True)
    for name in ("upper", "work"):
        folder(env, f"below/{name}")
    how = f"lowerdir={root},upperdir={env.place}/below/upper,workdir={env.place}/below/work"
    subprocess.run(["mount", "-t", "overlay", "none", "-o", how, own], check=True)
    try:
        (own / "own").mkdir()
        define(env, "bad", filesystem(own / "own"), parts=overlay(folder(env, "other")))
        refused(env, f"'{own}/own'", "has no idmapped mounts (an overlay")
        equal(os.listdir(own / "own"), [])
    finally:
        subprocess.run(["umount", own], check=True)


@test_of_overlays
def one_domain_writes(env):
    root, own, other = base(env), folder(env, "own"), folder(env, "other")
    start(env, "web", own, root)
    define(env, "bad", filesystem(own), parts=overlay(root))
    refused(env, f"'{own}'", "in use by another domain")
    # The lock is the kernel's, whoever dies.
    os.kill(controller(env, "web"), signal.SIGKILL)
    eventually(lambda: env.state("web")[0] == "shut off", "the domain is gone")
    env.virsh("start", "bad").ok()
    env.virsh("destroy", "bad").ok()
    # What is written can be a base, but not both at once; by another name too, which only the lock sees.
    alias = env.place / "alias"
    alias.symlink_to(own)
    for upper in (own / "upper", alias / "upper"):
        env.virsh("start", "web").ok()
        define(env, "bad", filesystem(other), parts=overlay(upper, root))
        refused(env, f"'{upper}'", "another domain writes to" if upper.is_relative_to(alias) else "written to by domain 'web'")
        env.virsh("destroy", "web").ok()
        env.virsh("start", "bad").ok()
        env.virsh("start", "web").fails("in use by another domain" if upper.is_relative_to(alias) else "domain 'bad', which runs, has")
        env.virsh("destroy", "bad").ok()


@test_of_overlays
def a_base_in_use_is_written_by_nobody(env):
    root, own = base(env), folder(env, "own")
    start(env, "web", own, root)
    define(env, "bad", filesystem(root))
    refused(env, "domain 'web', which runs, has", f"'{root}'", "<readonly/>")
    define(env, "bad", filesystem(env.root_tree()), filesystem(own / "upper", "/srv"))
    refused(env, "domain 'web', which runs, has", f"'{own}'")
    define(env, "bad", filesystem(root))
    define(env, "reader", filesystem(root, more="<readonly/>"))
    env.virsh("start", "reader").ok()
    equal(sh(env, "reader", "cat /etc/shared"), "of the base\n")
    for name in ("reader", "web"):
        env.virsh("destroy", name).ok()
    env.virsh("start", "bad").ok()
    env.virsh("start", "web").fails(f"'{root}' of <userns:overlay> is written to by domain 'bad'")


@test_of_overlays
def marks_lead_nowhere(env):
    """Of an upper layer that somebody has written marks into, and of container root who tries to."""
    root, own = base(env), folder(env, "own")
    (root / "hidden").mkdir(0o700)
    (root / "hidden/secret").write_text("hidden\n")
    start(env, "web", own, root)
    env.virsh("destroy", "web").ok()
    # By hand, since the kernel marks what is made in there as nothing that could be merged.
    for space in ("trusted", "user"):
        (own / "upper" / space).mkdir()
        (own / "upper" / f"{space}-file").write_text("")
        os.setxattr(own / "upper" / space, f"{space}.overlay.redirect", b"/hidden")
        os.setxattr(own / "upper" / f"{space}-file", f"{space}.overlay.metacopy", b"")
        os.setxattr(own / "upper" / f"{space}-file", f"{space}.overlay.redirect", b"/hidden/secret")
    env.virsh("start", "web").ok()
    for space in ("trusted", "user"):
        seen = sh(env, "web", f"ls /{space}; cat /{space}/secret /{space}-file", fails=True)
        equal(seen, "", f"a mark {space}.overlay was followed")
    # A folder of the base that is renamed would need one.
    equal(sh(env, "web", "mv /folder /other && cat /other/below/file && test ! -e /folder && echo copied"), "deep\ncopied\n")
    equal((root / "folder/below/file").read_text(), "deep\n")


if __name__ == "__main__":
    main()
