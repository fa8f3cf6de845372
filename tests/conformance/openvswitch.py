"""Ports of Open vSwitch with the kernel's data path, as Nova and its agents have them: a link of type ethernet, and its name in the switch's
database. The switch goes over to the link that a container has after a reboot by itself."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from harness import Skip, check, equal, eventually, main, test
from image_files import USERNS, exec_argv, init_of
from plugging import links, nic, start
from world import ask, ip

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
SWITCH, PORT, ADDRESS = "ovs-test", "ovsport0", "10.9.8.2"


class Switch:
    """Debian's programs, with a database of their own."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.environment = {**os.environ, "OVS_RUNDIR": folder, "OVS_DBDIR": folder, "OVS_LOGDIR": folder}

    def bring_up(self):
        folder = self.folder
        self.run("ovsdb-tool", "create", f"{folder}/conf.db", SCHEMA)
        self.start("ovsdb-server", f"{folder}/conf.db", f"--remote=punix:{folder}/db.sock")
        eventually(lambda: pathlib.Path(folder, "db.sock").exists(), "the database listens")
        self.vsctl("--no-wait", "init")
        self.start("ovs-vswitchd", f"unix:{folder}/db.sock")

    def run(self, *argv):
        result = subprocess.run(argv, capture_output=True, text=True, check=False, env=self.environment)
        check(result.returncode == 0, f"{' '.join(argv)}: {result.stderr}")
        return result.stdout.strip()

    def vsctl(self, *words):
        return self.run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=20", *words)

    def start(self, *argv):
        with open(f"{self.folder}/{argv[0]}.log", "w", encoding="utf-8") as log:
            self.processes.append(subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv, "--no-chdir"], env=self.environment,
                                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()
        subprocess.run(["ovs-dpctl", "del-dp", "ovs-system"], env=self.environment, capture_output=True, check=False)


@contextlib.contextmanager
def switch():
    missing = [name for name in ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl") if not shutil.which(name)]
    if missing:
        raise Skip(f"{missing[0]} is not installed (package openvswitch-switch)")
    subprocess.run(["modprobe", "openvswitch"], capture_output=True, check=False)
    if not pathlib.Path("/sys/module/openvswitch").exists():
        raise Skip("this kernel has no data path of Open vSwitch (module openvswitch)")
    check("ovs-system" not in links(), "nobody else has a switch here")
    with tempfile.TemporaryDirectory() as folder:
        made = Switch(folder)
        try:
            made.bring_up()
            yield made
        finally:
            with contextlib.suppress(Exception):
                made.vsctl("del-br", SWITCH)
            made.stop()


@test(drivers=USERNS)
def a_port_of_a_container_that_reboots(env):
    with switch() as made:
        made.vsctl("add-br", SWITCH)
        ip("addr", "add", "10.9.8.1/24", "dev", SWITCH)
        ip("link", "set", SWITCH, "up")
        start(env, nic(1, f"<target dev='{PORT}'/><ip address='{ADDRESS}' prefix='24'/>", "ethernet", ""))
        made.vsctl("add-port", SWITCH, PORT)
        eventually(lambda: ask(ADDRESS, 80) == "ConnectionRefusedError", "the container answers")
        before, init = links()[PORT]["ifindex"], init_of(env, "web")
        subprocess.run(exec_argv(env, "web", "/bin/busybox reboot -f"), capture_output=True, check=False)  # dies with it
        eventually(lambda: init_of(env, "web") not in (None, init), "it has booted again")
        eventually(lambda: links().get(PORT, {}).get("master") == "ovs-system", "the new link is the switch's")
        check(links()[PORT]["ifindex"] != before, "it is another link")
        equal(made.vsctl("get", "Interface", PORT, "error"), "[]")
        eventually(lambda: ask(ADDRESS, 80) == "ConnectionRefusedError", "the container answers after its reboot")


if __name__ == "__main__":
    main()
