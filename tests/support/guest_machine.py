#!/usr/bin/python3
"""The virtual machine of tests/support/make-guest: its boot loader, and the machine itself, emulated, on a port of loopback.

    guest_machine.py install-grub BOOT_IMG CORE_IMG DISK    in front of, and on, the first partition of a raw disk
    guest_machine.py first-boot DISK JSON                   boots it for good; JSON: what it answered with
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

MAC = "52:54:00:12:34:56"
BOOT_S = 900  # a machine without KVM that others use, too
SECTOR = 512


def install_grub(boot_img, core_img, disk, first_sector=2048):
    """As grub-bios-setup does it with a BIOS boot partition: each stage knows by number where the next one is."""
    boot, core = bytearray(pathlib.Path(boot_img).read_bytes()), bytearray(pathlib.Path(core_img).read_bytes())
    core += bytes(-len(core) % SECTOR)
    struct.pack_into("<Q", boot, 0x5c, first_sector)
    boot[0x66:0x68] = b"\x90\x90"  # the drive is that of the BIOS
    struct.pack_into("<QHH", core, SECTOR - 12, first_sector + 1, len(core) // SECTOR - 1, 0x820)
    with open(disk, "r+b") as file:
        file.write(boot[:440])
        file.seek(first_sector * SECTOR)
        file.write(core)


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def accelerator():
    """/dev/kvm may be there and its guests hang (tests/vm/README.md)."""
    flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    has_kvm = os.access("/dev/kvm", os.W_OK) and flags and {"vmx", "svm"} & set(flags.group(1).split())
    return "kvm" if has_kvm else "tcg"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def page(address, port=80, path=""):
    """What the web server says, or None."""
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"http://{address}:{port}/{path}", timeout=5) as answer:
            return answer.read().decode()
    return None


def host_key(address, port=22):
    """The ed25519 key that sshd has, or None."""
    done = subprocess.run(["ssh-keyscan", "-T", "60", "-p", str(port), "-t", "ed25519", address], capture_output=True, text=True)
    found = re.search(r"ssh-ed25519 (\S+)", done.stdout)
    return found and found.group(1)


class Machine:
    """It boots when this is made, from its own boot loader. Ends with the test."""

    def __init__(self, disk, is_temporary=True):
        self.folder = tempfile.TemporaryDirectory()
        self.monitor = pathlib.Path(self.folder.name, "monitor")
        self.console = pathlib.Path(self.folder.name, "console")
        self.web, self.ssh = free_port(), free_port()
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{inner}" for port, inner in ((self.web, 80), (self.ssh, 22)))
        argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-m", "768", "-smp", "2",
                "-accel", accelerator(),
                "-drive", f"file={disk},format=qcow2,if=virtio,cache=unsafe,snapshot={'on' if is_temporary else 'off'}",
                "-netdev", f"user,id=net,restrict=on,{forwards}", "-device", f"virtio-net-pci,netdev=net,mac={MAC},addr=3",
                "-serial", f"file:{self.console}", "-qmp", f"unix:{self.monitor},server=on,wait=off"]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def wait_for_page(self, path=""):
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end and self.process.poll() is None:
            if (text := page("127.0.0.1", self.web, path)) is not None:
                return text
            time.sleep(0.5)
        raise RuntimeError(f"no answer; the end of the console:\n{self.console.read_text(errors='replace')[-3000:]}")

    def wait_for_host_key(self):
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end:
            if key := host_key("127.0.0.1", self.ssh):
                return key
            time.sleep(1)
        raise RuntimeError("sshd does not answer")

    def power_off(self):
        """By the power button, as virsh shutdown does it."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.monitor))
            file = monitor.makefile("rw")
            file.readline()
            for command in ("qmp_capabilities", "system_powerdown"):
                file.write(json.dumps({"execute": command}) + "\n")
                file.flush()
                file.readline()
            self.process.wait(BOOT_S)


def first_boot(disk, told):
    started = time.monotonic()
    with Machine(disk, is_temporary=False) as machine:
        text = machine.wait_for_page()
        answered = time.monotonic() - started
        key = machine.wait_for_host_key()
        state = machine.wait_for_page("state")
        machine.power_off()
    if state != "running\n":
        raise RuntimeError(f"the machine itself is not well: {state}")
    pathlib.Path(told).write_text(json.dumps({"page": text, "host_key": key, "boot_s": round(answered, 1)}) + "\n")


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"
    {"install-grub": install_grub, "first-boot": first_boot}[sys.argv[1]](*sys.argv[2:])
