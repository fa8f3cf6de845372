#!/usr/bin/env python3
"""Containers in containers: the daemon as root of a domain, and of a domain in that, three levels deep, and a user's own daemon
in a domain. Without any policy of a security module: what keeps them apart is ids.

    tests/conformance/nesting.py --driver userns

The host's /usr and the build are mounted into each level, so the same virsh, newuidmap and daemon are at work in there.
"""
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import Skip, check, contains, daemon_module, equal, main, test  # noqa: E402

FIRST, COUNT = 1_700_000_000, 2_000_000
NESTING = ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:seccomp nesting='yes'/></userns:domain>"
           "</metadata>")
INIT = "#!/bin/sh\ntrap 'exit 0' TERM INT\nwhile :; do sleep 1000 & wait $!; done\n"

# What a level does: a daemon of its own, a root for the next one with all that this one has, and the same again in there.
# $1: levels to go; $2: the level above's ids are COUNT / 4 each time.
LEVEL = r"""
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
left=$1 count=$2 first=100000
read -r inside outside size </proc/self/uid_map
echo "level: $inside $outside $size $(hostname)"
[ "$left" -gt 0 ] || exit 0
/b/driver/virtusernsd --module-dir /b/driver/userns --controller /b/driver/controller/virtuserns-controller >/out/daemon.log 2>&1 &
for i in $(seq 100); do [ -S /run/libvirt/virtusernsd-sock ] && break; sleep 0.1; done
sh /make-root /root/next $first
cat >/root/next.xml <<END
<domain type='lxc'><name>level$left</name><memory unit='MiB'>128</memory>NESTING<os><type>exe</type><init>/init</init></os>
<idmap><uid start='0' target='$first' count='$count'/><gid start='0' target='$first' count='$count'/></idmap>
<devices><filesystem type='mount'><source dir='/root/next'/><target dir='/'/></filesystem>
<filesystem type='mount'><source dir='/usr'/><target dir='/usr'/><readonly/></filesystem>
<filesystem type='mount'><source dir='/b'/><target dir='/b'/><readonly/></filesystem><console type='pty'/></devices></domain>
END
v="virsh -c userns:///system"
$v define /root/next.xml >/dev/null && $v start level$left >/dev/null || { cat /out/daemon.log; exit 1; }
$v list --name
/b/driver/exec/virt-userns-exec level$left -- sh /level $((left - 1)) $((count / 4)) || exit 1
$v destroy level$left >/dev/null && $v undefine level$left >/dev/null && echo "level$left is gone: $(ls /run/libvirt/userns | wc -l)"
"""

MAKE_ROOT = r"""
# make-root DIRECTORY FIRST: an empty one of these ids, with this script and its sisters in it
mkdir -p $1 && cd $1 && mkdir -p etc proc sys dev tmp run var/lib var/log root usr b out home
for link in bin lib lib64 sbin; do ln -s usr/$link $link; done
ln -s ../run var/run
cp /etc/passwd /etc/group /etc/nsswitch.conf etc/
cp /etc/ld.so.cache etc/ 2>/dev/null
cp /init /level /make-root .
chmod 1777 tmp
[ $2 = 0 ] || chown -R $2:$2 .
"""


def outer(env, name):
    """A domain with room for others: (name, folder of its root)."""
    build = pathlib.Path(env.daemon.build)
    if not (build / "driver/exec/virt-userns-exec").exists():
        raise Skip("virt-userns-exec is not built")
    root = pathlib.Path(env.root_tree())  # a name of its own
    shutil.rmtree(root)
    root.mkdir()
    scripts = {"init": INIT, "level": LEVEL.replace("NESTING", NESTING), "make-root": MAKE_ROOT}
    for folder in ("etc", "proc", "sys", "dev", "tmp", "run", "var/lib", "var/log", "root", "usr", "b", "out", "home"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "var/run").symlink_to("../run")
    for file in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
        shutil.copy(f"/etc/{file}", root / "etc" / file)
    for script, text in scripts.items():
        (root / script).write_text(text)
        (root / script).chmod(0o755)
    (root / "tmp").chmod(0o1777)
    idmap = f"<idmap><uid start='0' target='{FIRST}' count='{COUNT}'/><gid start='0' target='{FIRST}' count='{COUNT}'/></idmap>"
    mounts = "".join(f"<filesystem type='mount'><source dir='{source}'/><target dir='{target}'/><readonly/></filesystem>"
                     for source, target in (("/usr", "/usr"), (build, "/b")))
    xml = (f"<domain type='lxc'><name>{name}</name><memory unit='MiB'>512</memory>{NESTING}<os><type>exe</type><init>/init</init></os>"
           f"{idmap}<devices><filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>{mounts}"
           f"<console type='pty'/></devices></domain>")
    env.virsh("define", env.write_xml(xml)).ok()
    env.virsh("start", name).ok()
    return root


def inside(env, name, *words):
    program = pathlib.Path(env.daemon.build, "driver/exec/virt-userns-exec")
    return subprocess.run([program, name, "--", *words], capture_output=True, text=True, check=False,
                          timeout=60 * daemon_module.TIME_FACTOR)


@test(["userns"])
def three_levels_of_the_systems_daemon(env):
    """Each in ids of the level above; whatever the depth, the host sees them in the outermost domain's range."""
    outer(env, "outer")
    said = inside(env, "outer", "sh", "/level", "2", str(COUNT // 4))
    check(said.returncode == 0, f"exit {said.returncode}: {said.stdout} {said.stderr}")
    lines = said.stdout.split("\n")
    levels = [line.split()[1:] for line in lines if line.startswith("level: ")]
    equal([words[:3] for words in levels], [["0", str(FIRST), str(COUNT)], ["0", "100000", str(COUNT // 4)],
                                            ["0", "100000", str(COUNT // 16)]])
    equal([words[3] for words in levels], ["outer", "level2", "level1"])
    contains(said.stdout, "level1 is gone: 0")
    contains(said.stdout, "level2 is gone: 0")


SESSION = r"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/home/anna USER=anna XDG_RUNTIME_DIR=/home/anna/.run
cd /home/anna && mkdir -p .run plain/sbin plain/bin plain/proc plain/sys plain/dev plain/tmp
cp /usr/bin/busybox plain/bin/ && ln -s busybox plain/bin/sh && ln -s busybox plain/bin/sleep && cp /init plain/sbin/init
ROOTFS create --from plain root >/dev/null || exit 1
/b/driver/virtusernsd --module-dir /b/driver/userns --controller /b/driver/controller/virtuserns-controller >daemon.log 2>&1 &
for i in $(seq 100); do [ -S .run/libvirt/virtusernsd-sock ] && break; sleep 0.1; done
cat >web.xml <<END
<domain type='lxc'><name>web</name><memory unit='MiB'>64</memory><os><type>exe</type><init>/sbin/init</init></os>
<devices><filesystem type='mount'><source dir='/home/anna/root'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>
END
v="virsh -c userns:///session"
$v define web.xml >/dev/null && $v start web >/dev/null || { cat daemon.log; exit 1; }
$v domstate web
/b/driver/exec/virt-userns-exec -c userns:///session web -- sh -c 'read a b c </proc/self/uid_map; echo "map $a $b $c"'
$v destroy web >/dev/null; $v undefine web >/dev/null; ROOTFS remove root
"""


@test(["userns"])
def a_users_own_daemon_in_a_domain(env):
    """userns:///session of a user of the domain, with the domain's /etc/subuid and newuidmap."""
    if not shutil.which("newuidmap"):
        raise Skip("newuidmap is not installed (package uidmap)")
    root = outer(env, "outer")
    for file, line in (("passwd", "anna:x:1001:1001::/home/anna:/bin/sh\n"), ("group", "anna:x:1001:\n"),
                       ("subuid", "anna:200000:100000\n"), ("subgid", "anna:200000:100000\n")):
        with open(root / "etc" / file, "a") as to:
            to.write(line)
    tool = pathlib.Path(os.environ.get("VIRTUSERNS_SOURCE", pathlib.Path(__file__).parents[2]), "tools/virt-userns-rootfs")
    shutil.copy(tool, root / "rootfs")
    (root / "session").write_text(SESSION.replace("ROOTFS", "/rootfs"))
    for file in ("rootfs", "session"):
        (root / file).chmod(0o755)
    (root / "home/anna").mkdir()
    os.chown(root / "home/anna", 1001, 1001)  # seen through a mapped mount
    said = inside(env, "outer", "setpriv", "--reuid", "1001", "--regid", "1001", "--clear-groups", "sh", "/session")
    check(said.returncode == 0, f"exit {said.returncode}: {said.stdout} {said.stderr}")
    contains(said.stdout, "running")
    contains(said.stdout, "map 0 200000 65536")


@test(["userns"])
def without_nesting(env):
    """The default: no user namespace in a domain, and so no container."""
    env.start("web")
    said = inside(env, "web", "busybox", "unshare", "-U", "true")
    check(said.returncode != 0, "a user namespace was made")


if __name__ == "__main__":
    main()
