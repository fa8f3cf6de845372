"""Images that somebody made to do harm: each start fails by a reason that says why, and leaves nothing."""
import os
import pathlib
import shutil
import struct
import time

from harness import check, daemon_module, equal, main, test
from image_files import (MIB, NBD, USERNS, blank, define, ext4, filesystem, load_modules, loops, naming, need, need_qemu, partitioned,
                         qcow2, refused, run, sh, start)


def patched(env, image, name, at, data):
    path = os.path.join(env.folder, name)
    shutil.copy(image, path)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)
    return path


@test(drivers=USERNS)
def raw_images(env):
    good = ext4(env)
    cases = [("zeroes", blank(env, "zero.img", 4 * MIB), ["no file system was recognised"]),
             ("empty", blank(env, "empty.img", 0), ["it ends before byte 0"]),
             # struct ext4_super_block at 1024: s_journal_inum and s_journal_dev, s_mount_opts
             ("journal elsewhere", patched(env, good, "jdev.img", 1024 + 0xe0, struct.pack("<II", 0, 0x0800)),
              ["journal on another device"]),
             ("journal of another", patched(env, good, "journal.img", 1024 + 0x60, struct.pack("<I", 0x8)), []),
             ("options", patched(env, good, "opts.img", 1024 + 0x200, b"journal_path=/dev/vda\0"), ["options of mount"]),
             ("truncated", truncated(env, good, "short.img", 9 * MIB), ["make ext4"]),
             ("swap", swap(env), ["'swap'"]),
             ("partition beyond the end", truncated(env, partitioned(env, good), "cut.img", 12 * MIB),
              ["partition"], "<userns:image target='/' partition='3'/>"),
             ("no such partition", partitioned(env, good, "gpt.img"), ["no partition 7, only 3"],
              "<userns:image target='/' partition='7'/>"),
             ("no table", good, ["no partition"], "<userns:image target='/' partition='1'/>"),
             ("a table only", partitioned(env, good, "whole.img"), ["partition='N'"]),
             ("region beyond the end", good, ["has not"], f"<userns:image target='/' offset='0' size='{1 << 50}'/>"),
             ("offset beyond the end", good, ["it ends before"], f"<userns:image target='/' offset='{1 << 50}'/>")]
    for what, image, said, *parts in cases:
        define(env, "bad", filesystem(image), parts=parts[0] if parts else "")
        with naming(what):
            error = refused(env, image, *said)
        equal(loops(image), [], f"{what}: loop devices")
        check("internal error" not in error, f"{what}: {error}")


def truncated(env, image, name, size):
    path = os.path.join(env.folder, name)
    shutil.copy(image, path)
    os.truncate(path, size)
    return path


def swap(env):
    path = blank(env, "swap.img", 4 * MIB)
    run("mkswap", path)
    return path


@test(drivers=USERNS)
def an_image_that_asks_for_a_panic(env):
    """The super block says what the machine is to do when it finds an error. Only looked at: nothing here goes wrong."""
    image = ext4(env)
    run("tune2fs", "-e", "panic", image)
    start(env, "web", filesystem(image))
    check("errors=panic" not in sh(env, "web", "cat /proc/mounts"), "the image decides what the machine does at an error")


@test(drivers=USERNS)
def a_btrfs_of_several_devices(env):
    need("mkfs.btrfs")
    good = ext4(env)
    pool = blank(env, "two.btrfs", 120 * MIB)
    run("mkfs.btrfs", "-q", pool)
    path = patched(env, pool, "spread.btrfs", 65536 + 0x88, struct.pack("<Q", 2))
    fix_btrfs_checksum(path)
    define(env, "bad", filesystem(good), filesystem(path, "/pool"))
    refused(env, "several devices")


def fix_btrfs_checksum(path):
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    with open(path, "r+b") as file:
        file.seek(65536)
        block = file.read(4096)
        crc = 0xffffffff
        for byte in block[32:]:
            crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
        file.seek(65536)
        file.write(struct.pack("<I", crc ^ 0xffffffff))


@test(drivers=USERNS)
def qcow2_images(env):
    need_qemu()
    good = qcow2(ext4(env))
    secret = os.path.join(env.folder, "secret")
    pathlib.Path(secret).write_bytes(b"s" * 4 * MIB)

    def overlay_on(name, of="raw"):
        path = os.path.join(env.folder, f"evil{len(os.listdir(env.folder))}.qcow2")
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", of, path, "24M")
        return path
    with_data = os.path.join(env.folder, "data.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", with_data, "4M")
    vmdk = os.path.join(env.folder, "evil.vmdk")
    pathlib.Path(vmdk).write_text('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
                                  f'RW 8192 FLAT "{secret}" 0\nddb.adapterType = "ide"\n')
    cases = [("/etc/shadow below", overlay_on("/etc/shadow"), ["overlay on '/etc/shadow'"]),
             ("a json below", overlay_on("json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}"), ["overlay on"]),
             ("a server below", overlay_on("nbd://127.0.0.1:1/x"), ["overlay on"]),
             ("data elsewhere", with_data, ["its data is in another file"]),
             ("no qcow2", ext4(env, "plain.img"), ["no qcow2 image"]),
             ("truncated", truncated(env, good, "short.qcow2", 200), ["no file system"]),
             ("version 9", patched(env, good, "v9.qcow2", 4, struct.pack(">I", 9)), ["unknown version 9"]),
             ("name of a gigabyte", patched(env, good, "long.qcow2", 8, struct.pack(">QI", 4096, 1 << 30)), ["damaged"]),
             ("name beyond the end", patched(env, good, "far.qcow2", 8, struct.pack(">QI", 1 << 31, 100)), ["damaged"]),
             ("clusters of 2^63", patched(env, good, "cluster.qcow2", 20, struct.pack(">I", 63)), ["qemu-storage-daemon"]),
             ("table beyond the end", patched(env, good, "l1.qcow2", 40, struct.pack(">Q", 1 << 60)), []),
             ("extents of others", vmdk, ["qemu-storage-daemon"], "<driver type='nbd' format='vmdk'/>")]
    for what, image, said, *driver in cases:
        define(env, "bad", filesystem(image, driver=driver[0] if driver else NBD))
        with naming(what):
            error = refused(env, image, *said)
        check("internal error" not in error, f"{what}: {error}")
        check("root:" not in error and "ssss" not in error, f"{what} shows what is in the file: {error}")


@test(drivers=USERNS)
def sources_that_are_no_image(env):
    good = ext4(env)
    pipe = os.path.join(env.folder, "pipe.img")
    os.mkfifo(pipe)
    for path, said in ((pipe, "regular file"), (env.folder, "regular file"), ("/dev/null", "regular file"),
                       (os.path.join(env.folder, "none"), "No such file")):
        define(env, "bad", filesystem(good), filesystem(path, "/data"))
        began = time.monotonic()
        refused(env, path, said)
        check(time.monotonic() - began < 10 * daemon_module.TIME_FACTOR, "it was waited for")
    define(env, "bad", filesystem(good), filesystem(good, "/data", driver="", kind="block"))
    refused(env, "block device")


if __name__ == "__main__":
    load_modules()
    main()
