"""Disks of virtual machines, made of trees and of Debian's own tools (mkfs, sfdisk, lvm2, qemu-img), for tests/convert.

A guest is busybox with an init that greets (small, made at once), or a Debian with systemd (conformance/debian.py's archive).
"""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess

ROOT_UUID = "5d1c9a34-7d5a-4f4e-9a53-2f6f1d3f0a01"
MIB = 1024 * 1024
SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
INIT = ("#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\ntrap 'reboot -f' HUP\n"
        "echo \"up: $(cat /etc/hostname) $(cat /home/joe/note 2>/dev/null)\" > /told\n"
        "while :; do sleep 1000 & wait $!; done\n")


def run(*argv, **how):
    """Its output; an error says what it said."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL, **how)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(word) for word in argv)}: {done.stdout} {done.stderr}")
    return done.stdout


def missing_programs():
    """Of this host: what these disks are made by, and what a conversion runs."""
    wanted = ["qemu-img", "qemu-storage-daemon", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "sfdisk", "lvm", "busybox"]
    return [name for name in wanted if not shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")]


def busybox_tree(path):
    """A guest that has a bit of everything that a copy can lose."""
    path = pathlib.Path(path)
    for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc", "home", "var", "run"):
        (path / part).mkdir(parents=True)
    busybox = shutil.which("busybox")
    shutil.copy(busybox, path / "bin/busybox")
    for name in ("sh", "cat", "sleep", "hostname", "reboot", "poweroff", "ls", "id", "stat"):
        (path / "bin" / name).symlink_to("busybox")
    (path / "sbin/init").write_text(INIT)
    (path / "sbin/init").chmod(0o755)
    (path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (path / "etc/hostname").write_text("guest\n")
    (path / "etc/fstab").write_text(f"UUID={ROOT_UUID} / auto defaults 0 1\n")
    var = path / "var"
    (var / "setuid").write_text("x")
    (var / "setuid").chmod(0o6755)
    os.chown(var / "setuid", 1000, 1000)
    (var / "setuid").chmod(0o6755)
    (var / "capable").write_text("x")
    run("setcap", "cap_net_raw+ep", var / "capable")
    (var / "acl").write_text("x")
    run("setfacl", "-m", "u:1234:rw,g:99:r", var / "acl")
    (var / "folder").mkdir()
    run("setfacl", "-d", "-m", "u:1234:rwx", var / "folder")
    os.setxattr(var / "acl", "user.note", b"kept\0too")
    os.link(var / "acl", var / "acl-again")
    (var / "twin").write_text("one of two")
    os.link(var / "twin", var / "twin-again")
    with open(var / "sparse", "wb") as sparse:
        sparse.seek(8 * MIB)
        sparse.write(b"end")
        sparse.truncate(16 * MIB)
    os.mkfifo(var / "fifo", 0o622)
    os.mknod(var / "socket", 0o140666)
    os.mknod(var / "sda", 0o060660, os.makedev(8, 0))
    (var / "absolute").symlink_to("/etc/shadow")
    (var / "up").symlink_to("../../../../etc/shadow")
    os.chown(var / "up", 7, 8, follow_symlinks=False)
    os.utime(var / "acl", ns=(1_000_000_001, 1_600_000_000_123_456_789))
    path.chmod(0o755)
    return path


def debian_tree(path, archive):
    pathlib.Path(path).mkdir()
    run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", path)
    pathlib.Path(path, "etc/fstab").write_text(f"UUID={ROOT_UUID} / auto errors=remount-ro 0 1\nLABEL=home /home auto defaults 0 2\n"
                                               "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n")
    pathlib.Path(path).chmod(0o755)
    return pathlib.Path(path)


@contextlib.contextmanager
def loop(path, *options):
    device = run("losetup", "-f", "--show", *options, path).strip()
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextlib.contextmanager
def mounted(source, folder, *options):
    """`source` below `folder`, in the mount namespace of this process."""
    os.makedirs(folder, exist_ok=True)
    run("mount", *options, source, folder)
    try:
        yield pathlib.Path(folder)
    finally:
        run("umount", folder)
        os.rmdir(folder)


def _fill(device, tree, folder, *options):
    with mounted(device, folder, *options) as place:
        if tree:
            run("cp", "-a", f"{tree}/.", place)


def filesystem(path, kind, tree, mib, label="", uuid=ROOT_UUID, subvolumes=()):
    """A file with a file system of `kind` that holds `tree`."""
    path = pathlib.Path(path)
    with open(path, "xb") as image:
        image.truncate(mib * MIB)
    name = ["-L", label] if label else []
    if kind.startswith("ext"):
        run(f"mkfs.{kind}", "-q", "-F", "-i", 2048, "-U", uuid, *name, *(["-d", tree] if tree else []), path)
        return path
    run(f"mkfs.{kind}", "-q", *(["-m", f"uuid={uuid}"] if kind == "xfs" else ["-U", uuid]), *name, path)
    with loop(path) as device:
        if not subvolumes:
            _fill(device, tree, f"{path}.mnt")
        for name in subvolumes:
            with mounted(device, f"{path}.mnt") as place:
                run("btrfs", "subvolume", "create", place / name)
            _fill(device, tree if name == subvolumes[0] else None, f"{path}.mnt", "-o", f"subvol={name}")
    return path


def partitioned(path, table, *images):
    """A raw disk with a partition for each image, and one in front that has none."""
    sizes = [os.path.getsize(image) for image in images]
    with open(path, "xb") as disk:
        disk.truncate(sum(sizes) + 8 * MIB)
    lines = ["size=2M"] + [f"size={size // MIB}M" for size in sizes]
    run_sfdisk(path, table, lines)
    starts = [int(start) for start in re.findall(r"start= *(\d+)", run("sfdisk", "-d", path))]
    for image, start in zip(images, starts[1:]):
        run("dd", f"if={image}", f"of={path}", "bs=1M", f"seek={start * 512}", "oflag=seek_bytes", "conv=notrunc,sparse")
    return path


def run_sfdisk(path, table, lines):
    done = subprocess.run(["sfdisk", "-q", path], input=f"label: {table}\n" + "\n".join(lines) + "\n", text=True,
                          capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"sfdisk: {done.stderr}")


def logical(path, group, **volumes):
    """A raw disk that is an LVM physical volume with linear volumes of these images, made by lvm2 without device-mapper."""
    sizes = {name: -(-os.path.getsize(image) // (4 * MIB)) for name, image in volumes.items()}
    with open(path, "xb") as disk:
        disk.truncate((sum(sizes.values()) + 2) * 4 * MIB)
    home = f"{path}.lvm"
    os.makedirs(home)
    environment = {**os.environ, "LVM_SYSTEM_DIR": home, "LVM_SUPPRESS_FD_WARNINGS": "1"}
    with loop(path) as device:
        config = (f'global {{ activation=0 locking_dir="{home}" }} devices {{ filter=[ "a|^{device}$|", "r|.*|" ] '
                  "use_devicesfile=0 } backup { backup=0 archive=0 }")
        run("lvm", "pvcreate", "-q", "--config", config, device, env=environment)
        run("lvm", "vgcreate", "--config", config, group, device, env=environment)
        for name, extents in sizes.items():
            run("lvm", "lvcreate", "--config", config, "-an", "-Zn", "-Wn", "-l", extents, "-n", name, group, env=environment)
        for name, image in volumes.items():
            first = int(run("lvm", "lvs", "--config", config, "--noheadings", "-o", "seg_pe_ranges", f"{group}/{name}",
                            env=environment).strip().split(":")[1].split("-")[0])
            run("dd", f"if={image}", f"of={device}", "bs=1M", f"seek={1 + 4 * first}", "conv=notrunc")
    shutil.rmtree(home)
    return path


def fill(path):
    """Of a file system that is small: until there is no room for one byte."""
    with open(path, "xb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(1 << 16):
            file.write(bytes(4096))


def to_format(raw, path, kind):
    run("qemu-img", "convert", "-f", "raw", "-O", kind, raw, path)
    return path
