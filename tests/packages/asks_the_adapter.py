#!/usr/bin/python3
"""In a tree with the packages: the installed adapter at its place, and Nova's driver as the user that Debian's service has."""
import os
import re
import subprocess
import sys
import time

SOCKET = "/run/virtuserns/compute.sock"
# The version is what a client asks for first, before there is any hypervisor.
DRIVER = """
import nova.cmd
import nova.conf
from nova.virt import driver, virtapi
nova.conf.CONF([], project="nova", prog="nova-compute", default_config_files=["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"])
loaded = driver.load_compute_driver(virtapi.VirtAPI())
nova.conf.CONF.set_override("reconnect_timeout", 0, group="userns")
print(type(loaded).__module__, loaded._adapter.check_version())
"""


# Not by Nova, whose configuration nobody may not read either.
CONNECT = f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})"


def run_as(user: str, group: str, program: str) -> subprocess.CompletedProcess:
    return subprocess.run(["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "/usr/bin/python3", "-c", program],
                          capture_output=True, text=True, check=False, cwd="/")


def main() -> int:
    os.makedirs("/run/virtuserns", exist_ok=True)
    adapter = subprocess.Popen(["/usr/sbin/virtuserns-compute", "--config", "/etc/virtuserns/compute.conf"])
    try:
        while not os.path.exists(SOCKET):
            if adapter.poll() is not None:
                sys.exit("the adapter has ended")
            time.sleep(0.05)
        nova, nobody = run_as("nova", "nova", DRIVER), run_as("nobody", "nogroup", CONNECT)
        print(nova, nobody, sep="\n")
        return 0 if re.fullmatch(r"nova\.virt\.userns\.driver 1\.\d+\n", nova.stdout) and nobody.returncode != 0 \
            and "Permission denied" in nobody.stderr else 1
    finally:
        adapter.terminate()
        adapter.wait()


sys.exit(main())
