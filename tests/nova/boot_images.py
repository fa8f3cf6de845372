"""The images that are booted."""
import pathlib
import shutil
import subprocess

from daemon import NotPossible

MAKE_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/make-busybox-rootfs"


def large(folder: str) -> str:
    """A qcow2 of some megabytes whose only file has more blocks than a disk of 1 GiB, of which none was written."""
    raw, image = pathlib.Path(folder, "large.ext4"), pathlib.Path(folder, "large.qcow2")
    with open(raw, "wb") as file:
        file.truncate(1300 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", raw], check=True)
    blocks = (1100 << 20) // 4096
    subprocess.run(["debugfs", "-w", "-f", "-", raw], check=True, text=True, capture_output=True,
                   input=f"write /dev/null large\nfallocate large 0 {blocks - 1}\nset_inode_field large size {blocks * 4096}\n")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    return str(image)


def busybox(folder: str) -> str:
    """A file system of 64 MiB without partitions; as large as its flavor when it runs."""
    if not shutil.which("mkfs.ext4"):
        raise NotPossible("mkfs.ext4 is not installed")
    root, image = pathlib.Path(folder, "root"), pathlib.Path(folder, "busybox.ext4")
    subprocess.run([MAKE_ROOT, root], check=True, stdout=subprocess.DEVNULL)
    shadow = root / "etc/shadow"
    shadow.write_text("root:*:19000:0:99999:7:::\n")
    shadow.chmod(0o600)
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, image], check=True)
    shutil.rmtree(root)
    return str(image)
