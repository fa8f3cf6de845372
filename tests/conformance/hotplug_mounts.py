"""File systems that come to a running domain and leave it: their owners and flags, hostile places, and who is in the way."""
import os
import pathlib

from harness import check, contains, equal, main, test
from image_files import USERNS, blank, directory, filesystem, init_of, run, sh
from plugging import attach, definition, detach, mounts, ram, source, start, staying, unchanged

READONLY = "<readonly/>"


def owners(*paths):
    return [(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in paths]


def first_id(env):
    return int(pathlib.Path(f"/proc/{init_of(env, 'web')}/uid_map").read_text().split()[1])


@test(drivers=USERNS)
def a_folder_of_the_host(env):
    here = source(env)
    root = start(env)
    stored = definition(env, "--inactive")
    xml = directory(here, "/srv/new/data")
    attach(env, xml).ok()
    contains(definition(env), "<target dir='/srv/new/data'/>")
    equal(definition(env, "--inactive"), stored)
    equal(sh(env, "web", "cd /srv/new/data && echo x >made && cat of-root && stat -c %u:%g . of-root of-user made"),
          "here\n0:0\n0:0\n1000:1001\n0:0\n")
    equal(owners(here / "made"), [(0, 0)])
    with unchanged(env):
        attach(env, xml).fails("Target already exists")
        attach(env, directory(pathlib.Path(env.folder, "nowhere"), "/other")).fails("nowhere")
        attach(env, directory("/", "/other")).fails("root directory")
    detach(env, xml).ok()
    check("/srv/new/data" not in mounts(env), "it is mounted still")
    check("/srv/new/data" not in definition(env), "it is shown still")
    equal(sh(env, "web", "ls /srv/new/data; stat -c %u:%g /srv /srv/new /srv/new/data"), "0:0\n0:0\n0:0\n")
    equal(owners(root / "srv", root / "srv/new/data"), [(0, 0)] * 2)
    equal(sorted(os.listdir(here)), ["made", "of-root", "of-user"])
    detach(env, xml).fails("not found")
    # As often as one likes; and one that has the domain's ids already.
    os.chown(here, first_id(env), first_id(env))
    attach(env, xml).ok()
    equal(sh(env, "web", "cd /srv/new/data && echo x >shifted && stat -c %u:%g . shifted of-root"), "0:0\n0:0\n65534:65534\n")
    equal(owners(here / "shifted"), [(first_id(env),) * 2])


@test(drivers=USERNS)
def as_at_a_start(env):
    """The same flags and limits, whenever it came."""
    here = source(env)
    kinds = {"rw": lambda at: directory(here, at), "ro": lambda at: directory(here, at, READONLY), "ram": ram}
    start(env, *[make(f"/start/{name}") for name, make in kinds.items()])
    for name, make in kinds.items():
        attach(env, make(f"/live/{name}")).ok()
    found = mounts(env)
    for name in kinds:
        was, now = found[f"/start/{name}"], found[f"/live/{name}"]
        equal((now[5], now[now.index("-") + 1], now[-1]), (was[5], was[was.index("-") + 1], was[-1]), f"flags of {name}")
    contains(sh(env, "web", "df -k /live/ram | tail -n1"), " 2048 ")
    sh(env, "web", "echo x >/live/ram/x && stat -c %u:%g /live/ram | grep -q ^0:0$")
    for name in kinds:
        detach(env, kinds[name](f"/live/{name}")).ok()
        with unchanged(env):
            detach(env, kinds[name](f"/start/{name}")).fails("was there when the domain started", "--config")
        detach(env, kinds[name](f"/start/{name}"), "--config").ok()
    check("/start/" not in definition(env, "--inactive"), "it is there at the next start")
    equal(sorted(place for place in mounts(env) if place.startswith(("/start", "/live"))), ["/start/ram", "/start/ro", "/start/rw"])


@test(drivers=USERNS)
def read_only_is_locked(env):
    here = source(env)
    os.mknod(here / "null", 0o20666, os.makedev(1, 3))
    start(env)
    attach(env, directory(here, "/ro", READONLY)).ok()
    attach(env, directory(here, "/rw")).ok()
    attach(env, ram("/ram")).ok()
    # Of what is its own, it may.
    sh(env, "web", "mkdir /own && mount -t tmpfs none /own && mount -o remount,bind,ro,nodev /own && ! touch /own/x && "
       "mount -o remount,bind,rw,dev /own && touch /own/x && grep ' /own ' /proc/mounts | grep -v -q nodev")
    with unchanged(env):
        sh(env, "web", "! echo x >/ro/x && ! touch /ro/of-root && ! rm /ro/of-root")
        for flags, place in (("rw", "/ro"), ("rw,nodev", "/ro"), ("dev,ro", "/ro"), ("dev", "/rw"), ("dev", "/ram")):
            sh(env, "web", f"! mount -o remount,bind,{flags} {place}")
        for place in ("/rw", "/ro"):
            sh(env, "web", f"! cat {place}/null")
    # By a copy of it neither.
    sh(env, "web", "mkdir /copy && mount --bind /ro /copy && ! mount -o remount,rw,bind /copy && ! touch /copy/x && umount /copy")
    equal(sorted(os.listdir(here)), ["null", "of-root", "of-user"])
    detach(env, directory(here, "/ro", READONLY)).ok()
    check("/ro" not in mounts(env), "it is mounted still")


@test(drivers=USERNS)
def places_that_lead_elsewhere(env):
    here = source(env)
    root = start(env)
    for name, to in (("to-proc", "/proc"), ("to-sys", "../sys"), ("to-dev", "/../../dev"), ("to-root", "/"), ("up", "../../.."),
                     ("out", "/../../etc"), ("twice", "to-proc"), ("loop", "loop")):
        (root / name).symlink_to(to)
    (root / "file").write_text("")
    host = sorted(os.listdir("/etc"))
    with unchanged(env, lambda: sorted(os.listdir(root / "etc"))):
        for target, said in (("/proc", "/proc"), ("/proc/sys", "/proc"), ("/sys", "/sys"), ("/dev", "/dev"), ("/", "/"),
                             ("/to-proc", "/proc"), ("/to-proc/sys", "/proc"), ("/to-sys", "/sys"), ("/to-sys/fs", "/sys"),
                             ("/to-dev", "/dev"), ("/to-root", "'/'"), ("/up", "'/'"), ("/twice", "/proc"), ("/loop", "/loop"),
                             ("/file", "/file")):
            for device in (directory(here, target), ram(target)):
                attach(env, device).fails(said)
    attach(env, directory(here, "/out/place")).ok()
    contains(sh(env, "web", "cat /etc/place/of-root"), "here")
    check("/etc/place" in mounts(env), "it is somewhere else")
    other = source(env)
    attach(env, directory(other, "/out")).ok()
    contains(sh(env, "web", "cat /etc/of-root"), "here")
    equal(sorted(os.listdir("/etc")), host, "/etc of the host")
    detach(env, directory(other, "/out")).ok()
    contains(sh(env, "web", "cat /etc/place/of-root"), "here")
    detach(env, directory(here, "/out/place")).ok()
    equal(sorted(place for place in mounts(env) if place.startswith("/etc")), [])


@test(drivers=USERNS)
def one_source_at_two_places(env):
    """The one that is named goes, whatever the names lead through."""
    here = source(env)
    root = start(env)
    for name in ("one", "two"):
        (root / f"of-{name}").mkdir()
        (root / name).symlink_to(f"of-{name}")
    for places in (("/a", "/b"), ("/one/a", "/two/b"), ("/one/a", "/b")):
        for first in places:
            for target in places:
                attach(env, directory(here, target)).ok()
            last = next(target for target in places if target != first)
            detach(env, directory(here, first)).ok()
            left = [place for place, fields in mounts(env).items() if fields[3].endswith("/plugged")]
            equal([place.replace("/of-", "/") for place in left], [last],
                  f"after {first} of {places} was detached")
            detach(env, directory(here, last)).ok()


@test(drivers=USERNS)
def in_use(env):
    here = source(env)
    xml = directory(here, "/data")
    start(env)
    for device, script in ((xml, "cd /data"), (xml, "exec 9</data/of-root"), (ram("/data"), "exec 9>/data/x")):
        attach(env, device).ok()
        with staying(env, script), unchanged(env):
            for _ in range(2):
                detach(env, device).fails("busy", "/data")
            sh(env, "web", "echo x >/data/works")
        detach(env, device).ok()
        check("/data" not in mounts(env), "it is mounted still")
    check((here / "works").exists(), "written to the host's")
    # One in another.
    for device in (xml, ram("/data/below")):
        attach(env, device).ok()
    with unchanged(env):
        detach(env, xml).fails("busy", "/data")
    for device in (ram("/data/below"), xml):
        detach(env, device).ok()


@test(drivers=USERNS)
def under_a_root_that_is_read_only(env):
    here = source(env)
    start(env, root=READONLY)
    with unchanged(env):
        attach(env, directory(here, "/new")).fails("/new", "Read-only file system")
    for device in (directory(here, "/etc"), ram("/etc")):
        attach(env, device).ok()
        sh(env, "web", "echo x >/etc/x && ! echo x >/x")
        detach(env, device).ok()


@test(drivers=USERNS)
def whatever_the_container_does_with_it(env):
    here = source(env)
    start(env)
    for target, script in (("/data", "umount /data"), ("/a/data", "mv /a /b"), ("/c/data", "umount /c/data && rm -r /c")):
        device = directory(here, target)
        attach(env, device).ok()
        sh(env, "web", script)
        detach(env, device).ok()
        check(f"'{target}'" not in definition(env), f"it is shown still: {script}")
    for fields in mounts(env).values():
        check(not fields[3].endswith("/plugged"), f"it is mounted still: {fields}")
    # What it has mounted of it elsewhere is its own.
    for script in ("true", "umount /data"):
        attach(env, directory(here, "/data")).ok()
        sh(env, "web", f"mkdir -p /other && mount --bind /data /other && {script}")
        detach(env, directory(here, "/data")).ok()
        check("/data" not in mounts(env), "it is mounted still")
        sh(env, "web", "cat /other/of-root && umount /other")
    # What it mounts there itself is in the way until it takes it away.
    attach(env, directory(here, "/data")).ok()
    sh(env, "web", "mount -t tmpfs none /data")
    with unchanged(env):
        detach(env, directory(here, "/data")).fails("/data")
    sh(env, "web", "umount /data")
    detach(env, directory(here, "/data")).ok()
    equal(sorted(os.listdir(here)), ["of-root", "of-user"])


@test(drivers=USERNS)
def at_a_start_only(env):
    here = source(env)
    image = blank(env, "image", 1 << 20)
    device = run("losetup", "-f", "--show", image).strip()
    overlay = f"<userns:overlay target='/laid'><userns:lower dir='{here}'/></userns:overlay>"
    own = pathlib.Path(env.folder, "own")
    own.mkdir()
    try:
        start(env, parts=overlay)
        bind = "<filesystem type='bind'><source dir='/etc'/><target dir='/bound'/></filesystem>"
        block = filesystem(device, "/block", driver="", kind="block")
        with unchanged(env):
            for xml in (bind, filesystem(image, "/image"), block, directory(own, "/laid")):
                attach(env, xml).fails("--config")
        attach(env, bind, "--config").ok()
    finally:
        run("losetup", "-d", device)


if __name__ == "__main__":
    main()
