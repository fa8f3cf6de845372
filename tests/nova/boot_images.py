"""The images that are booted."""
import pathlib
import shutil
import subprocess

from daemon import NotPossible

MAKE_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/make-busybox-rootfs"


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
