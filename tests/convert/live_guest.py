"""Machines that run: a libvirtd of our own with its qemu driver, in namespaces of its own, and a guest that is never idle.

The guest is busybox on ext4, booted by Debian's kernel (tests/support/make-vm-kernel) under emulation. It counts in files, and
says on its serial line what is on its disk for sure.
"""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import guests  # noqa: E402
from harness import Skip, eventually  # noqa: E402

MAC, ADDRESS, HOST_ADDRESS, PORT = "52:54:00:12:34:56", "192.0.2.2", "192.0.2.1", 80
BOOT_S = 90  # of an emulated machine on a busy host

# All that libvirt writes is in there, and all that it starts ends with the first process of the namespace. Without groups: those
# of this machine are not ours to change.
LIBVIRTD = r"""
for folder in /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt; do mount -t tmpfs tmpfs $folder; done
mount --bind "$2" /var/cache
umount -R -l /sys/fs/cgroup 2>/dev/null
# Nor is /dev/kvm: one that can be opened and does not work has libvirt ask qemu anew at each turn. So it cannot be opened.
[[ ! -e /dev/kvm ]] || { touch /run/libvirt/none && mount --bind /run/libvirt/none /dev/kvm && mount -o remount,bind,ro /dev/kvm; }
{ cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin'; } >/etc/libvirt/passwd
{ cat /etc/group; echo 'libvirt-qemu:x:64055:'; echo 'kvm:x:64056:'; } >/etc/libvirt/group
mount --bind /etc/libvirt/passwd /etc/passwd
mount --bind /etc/libvirt/group /etc/group
printf '%s\n' "user = \"$3\"" "group = \"$3\"" 'security_driver = "none"' 'cgroup_controllers = []' 'namespaces = []' \
  'stdio_handler = "file"' 'remember_owner = 0' 'seccomp_sandbox = 0' >/etc/libvirt/qemu.conf
printf '%s\n' "unix_sock_dir = \"$1\"" 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' 'mdns_adv = 0' >/etc/libvirt/libvirtd.conf
libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/pid" &
wait  # and reap: machines are not children of libvirtd
"""

INIT = r"""#!/bin/sh
# Of a machine and of a container: that one has /proc already.
[ -e /proc/self ] || { mount -t proc proc /proc; mount -t sysfs sys /sys; is_machine=yes; }
is_stopping=
trap 'is_stopping=yes' TERM INT PWR USR2
trap 'reboot -f' HUP
for device in /sys/class/net/*; do
  device=${device##*/}
  [ $device = lo ] || { ip addr add @ADDRESS@/24 dev $device; ip link set $device up; }
done
if [ $is_machine ] && ! grep -q deaf /proc/cmdline; then
  # The power button.
  for event in /dev/input/event*; do (dd if=$event bs=24 count=1 of=/dev/null 2>/dev/null && kill -USR2 1) & done
fi
httpd -p @PORT@ -h /var/www
n=$(cat /var/count)
if [ ! $is_machine ]; then
  # All else stays as the machine has left it.
  echo "up at $n" > /told
  while [ ! $is_stopping ]; do sleep 1000 & wait $!; done
  exit 0
fi
echo "up at $n"
while [ ! $is_stopping ]; do
  n=$((n + 1))
  echo $n > /var/count.new; mv /var/count.new /var/count
  echo $n > /var/made/$n
  rm -rf /var/made/$((n - 5))
  mv /var/moved/$((n - 1)) /var/moved/$n
  ln -sf $n /var/link
  [ -d /var/kind ] && { rmdir /var/kind; echo x > /var/kind; } || { rm -f /var/kind; mkdir /var/kind; }
  chmod $((n % 2))644 /var/mode
  # Of the same size and time each time.
  printf '%08d' $n > /var/same
  touch -d '2020-01-01 00:00:00' /var/same
  sync
  echo "synced $n"
done
echo "last $n"
sync
mount -o remount,ro /
poweroff -f
"""

DEFINITION = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}/kernel</kernel><initrd>{kernel}/initrd</initrd>
<cmdline>console=ttyS0 no_timer_check panic=-1 mitigations=off loglevel=3 nokaslr random.trust_cpu=on root=/dev/vda2 {words}</cmdline></os>
<features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/><model type='virtio'/></interface>
<controller type='usb' model='none'/><memballoon model='none'/>
<serial type='file'><source path='{serial}' append='on'/></serial></devices></domain>"""


def kernel():
    path = pathlib.Path(os.environ.get("VIRTUSERNS_VM_KERNEL") or guests.SOURCE / "build-check/vm-kernel")
    if not (path / "initrd").exists():
        raise Skip(f"there is no {path}/initrd: tests/support/make-vm-kernel makes it")
    return path


@contextlib.contextmanager
def bridge():
    """br0, with the host at it, and a neighbour: all frames that come to its port, as a packet socket."""
    guests.run("ip", "link", "add", "br0", "type", "bridge")
    guests.run("ip", "link", "add", "port0", "master", "br0", "type", "veth", "peer", "name", "neighbour")
    try:
        guests.run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", "br0")
        for link in ("br0", "port0", "neighbour"):
            guests.run("ip", "link", "set", link, "up")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0x0806)) as neighbour:
            neighbour.bind(("neighbour", 0x0806))
            yield neighbour
    finally:
        guests.run("ip", "link", "del", "port0")
        guests.run("ip", "link", "del", "br0")


def rename_bridge(old, new):
    for words in ((old, "down"), (old, "name", new), (new, "up")):
        guests.run("ip", "link", "set", *words)


def frames(neighbour):
    """What has come so far."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(neighbour.recv(2048))
    return found


def announcement():
    mac, address = bytes.fromhex(MAC.replace(":", "")), socket.inet_aton(ADDRESS)
    return b"\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + address + bytes(6) + address


@contextlib.contextmanager
def libvirt_host(lab, user="root"):
    """The URI of a libvirtd that has no machines yet, and runs them as `user`. What is left of them ends with it."""
    for program in ("libvirtd", "qemu-system-x86_64"):
        if not shutil.which(program, path="/usr/sbin:/usr/bin"):
            raise Skip(f"not installed: {program}")
    folder = lab.path("libvirt")
    folder.mkdir()
    # What libvirt finds out about qemu takes it seconds: once is enough.
    cache = pathlib.Path(lab.env.folder, "cache-of-libvirt")
    cache.mkdir(exist_ok=True)
    with open(lab.path("libvirtd.log"), "w") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid",
                                    "--fork", "--kill-child=KILL", "--mount-proc", "bash", "-c", LIBVIRTD, "-", folder, cache, user],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        listener = folder / "libvirt-sock"
        eventually(lambda: listener.exists() or process.poll() is not None, "libvirtd listens", 30)
        if process.poll() is not None:
            raise RuntimeError(lab.path("libvirtd.log").read_text())
        yield f"qemu+unix:///system?socket={listener}"
    finally:
        process.kill()
        process.wait()


class Guest:
    """A machine of `uri` that is up."""

    def __init__(self, lab, uri, name="vm1", words=""):
        self.lab, self.uri, self.name = lab, uri, name
        self.serial = lab.path("serial.log")
        tree = guests.busybox_tree(lab.path("tree"))
        (tree / "sbin/init").write_text(INIT.replace("@ADDRESS@", ADDRESS).replace("@PORT@", str(PORT)))
        shutil.rmtree(tree / "bin")
        (tree / "bin").mkdir()
        shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
        for applet in guests.run("busybox", "--list").split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        for folder in ("var/made", "var/moved", "var/kind", "var/www"):
            (tree / folder).mkdir()
        (tree / "var/count").write_text("0\n")
        (tree / "var/moved/0").write_text("renamed, again and again\n")
        (tree / "var/mode").write_text("x")
        (tree / "var/www/page").write_text("of the guest\n")
        root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 64)
        raw = guests.partitioned(lab.path("disk.raw"), "gpt", root)
        self.disk = guests.to_format(raw, lab.path("disk.qcow2"), "qcow2")
        self.overlay = lab.path("disk.qcow2.cutover")
        raw.unlink(), root.unlink()
        lab.path("vm.xml").write_text(DEFINITION.format(name=name, kernel=kernel(), disk=self.disk, mac=MAC, serial=self.serial,
                                                        words=words))
        self.virsh("define", lab.path("vm.xml"))
        self.virsh("start", name)
        self.await_count(1)

    def virsh(self, *words):
        return guests.run("virsh", "-c", self.uri, *words, env={**os.environ, "LC_ALL": "C"})

    def state(self):
        return self.virsh("domstate", self.name).strip()

    def process(self):
        """The machine's, as the host numbers it."""
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0].endswith(b"qemu-system-x86_64") and any(str(self.disk).encode() in word for word in words):
                    return int(path.parent.name)
        raise RuntimeError(f"no process has {self.disk}")

    def sources(self, *flags):
        return re.findall(r"<source file='([^']*qcow2[^']*)'", self.virsh("dumpxml", self.name, *flags))

    def said(self, word):
        """Numbers behind this word on the serial line, in order."""
        text = self.serial.read_text(errors="replace") if self.serial.exists() else ""
        return [int(number) for number in re.findall(rf"^{word} (\d+)\r?$", text, re.MULTILINE)]

    def count(self):
        return max(self.said("synced"), default=0)

    def await_count(self, number):
        eventually(lambda: self.count() >= number, f"the guest counts to {number}", BOOT_S)

    def goes_on(self):
        self.await_count(self.count() + 2)

    @contextlib.contextmanager
    def files(self, disk):
        """Of its file system on that disk, which nobody has open: of a copy, with its journal replayed."""
        raw = self.lab.path("look.raw")
        guests.run("qemu-img", "convert", "-O", "raw", disk, raw)
        start = int(re.search(r"raw2 : start= *(\d+)", guests.run("sfdisk", "-d", raw)).group(1)) * 512
        try:
            with guests.mounted(raw, self.lab.path("look"), "-o", f"loop,offset={start}") as place:
                yield place
        finally:
            raw.unlink()


def fetch():
    """What the guest's server answers, asked from its neighbour."""
    with contextlib.suppress(OSError), socket.create_connection((ADDRESS, PORT), timeout=5) as client:
        client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        return client.makefile().read().replace("\r", "").partition("\n\n")[2]
    return ""
