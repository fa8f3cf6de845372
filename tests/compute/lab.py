"""virtuserns-compute as a process beside the suite's daemon, images for it, and instances of it."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import uuid as uuid_module

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests/conformance"), str(SOURCE / "tests/support")]
import host_state  # noqa: E402
from api import ApiError, Client  # noqa: E402
from harness import Failure, Skip, check, daemon_module, equal, eventually  # noqa: E402,F401

USERNS = ("userns",)
MIB = 1 << 20
# Greets on the console, then echoes; hears what asks it to end or to boot again.
INIT = """#!/bin/sh
trap 'exit 0' TERM INT PWR USR2
trap 'reboot -f' HUP
echo "up $(hostname)"
cat </dev/console &
while :; do sleep 1000 & wait $!; done
"""
FLAVOR = {"vcpus": 1, "memory_mb": 64, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0, "extra_specs": {}}


def run(*argv, **how):
    result = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **how)
    if result.returncode != 0:
        raise Failure(f"{' '.join(map(str, argv))}: {result.stdout}{result.stderr}")
    return result.stdout


def busybox_tree(folder):
    """Of the tool's tree, with an init that is quick to end."""
    root = pathlib.Path(folder, "tree")
    run("sh", SOURCE / "tools/make-busybox-rootfs", root)
    (root / "sbin/init").unlink()
    (root / "sbin/init").write_text(INIT)
    (root / "sbin/init").chmod(0o755)
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o640)
    return root


def pack(tree, path):
    run("tar", "-C", tree, "--sort=name", "--owner=0", "--group=0", "-cf", path, ".")
    return str(path)


def instance(name="web", **more):
    return {"uuid": str(uuid_module.uuid4()), "name": name, "hostname": name, "project": "p", "user": "u",
            "display_name": name, "flavor": {**FLAVOR, **more.pop("flavor", {})}, "image_properties": {}, "ids": None, **more}


def connection(env):
    """The adapter's kind of guests follows from the scheme, and the harness serves each of our drivers as userns."""
    return "test+unix:///default?socket=/run/libvirt/virtusernsd-sock" if env.driver == "test" else env.uri


BRIDGE = "brq-compute"


def vif(number=1, **more):
    return {"id": f"port-{number}", "mac": f"fa:16:3e:00:00:0{number}", "type": "bridge", "bridge": BRIDGE, "device": f"tapc{number}",
            "mtu": 1400, "active": True, "ips": [{"address": f"10.9.0.{number + 1}", "prefix": 24}],
            "routes": [{"to": "0.0.0.0/0", "via": "10.9.0.1"}] if number == 1 else [], "dns": ["10.9.0.1"], **more}


class Adapter:
    """The process, and where it keeps what it knows."""

    def __init__(self, env, name="adapter", **settings):
        self.env, self.folder = env, pathlib.Path(env.folder, name)
        self.folder.mkdir()
        self.state, self.socket = self.folder / "state", str(self.folder / "socket")
        self.log = self.folder / "log"
        self.process = None
        program = os.path.join(env.daemon.build, "driver", "compute", "virtuserns-compute")
        check(os.access(program, os.X_OK), f"{program} is not built")
        self.config = self.folder / "conf"
        self.settings = {"connect": connection(env), "socket": self.socket, "state": str(self.state), "log_level": 2, "patience_s": 15,
                         "dumps": str(self.folder / "dumps"),
                         "daemon_config": "/etc/libvirt/virtusernsd.conf",
                         "image_program": os.path.join(env.daemon.build, "tools", "image", "virt-userns-image"), **settings}
        self.argv = [program, "--config", str(self.config)]

    def start(self, wrap=()):
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()))
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *wrap, *self.argv], stdin=subprocess.DEVNULL,
                                        stdout=self.log.open("a"), stderr=subprocess.STDOUT)
        eventually(self.answers, "the adapter answers", 20)
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise Failure(f"the adapter ended with {self.process.returncode}: {self.text()}")
        with contextlib.suppress(OSError), self.client() as client:
            return client.call("api.version")
        return None

    def client(self, **how):
        return Client(self.socket, **how)

    def text(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]) if self.log.exists() else ""

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s=20):
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s * daemon_module.TIME_FACTOR)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    # ---- what is on the host ----

    def mounts(self):
        return [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines() if str(self.folder) in line]

    def loops(self):
        found = []
        for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if f"/{self.env.folder.split('/')[-1]}/{self.folder.name}/" in entry.read_text():
                    found.append(entry.parent.parent.name)
        return found

    def instances(self):
        folder = self.state / "instances"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def holds(self):
        return sorted(f"{path.parent.name}/{path.name}" for path in (self.state / "images/holds").glob("*/*"))

    def leases(self):
        return sorted(path.name for path in pathlib.Path("/var/lib/libvirt/userns").glob("**/*") if path.is_file()
                      and not path.name.endswith(".lock"))


class StuckPacks:
    """In place of virt-userns-image one that begins to pack and then stands still, as over a storage that does not answer."""

    def __init__(self, env):
        folder = pathlib.Path(env.folder, f"stuck-{uuid_module.uuid4()}")
        folder.mkdir()
        self.program, self._pids = folder / "image-program", folder / "pids"
        real = os.path.join(env.daemon.build, "tools", "image", "virt-userns-image")
        self.program.write_text(f'#!/bin/sh\nif [ "$1" = pack ]; then echo $$ >> {self._pids}; printf half; kill -STOP $$; fi\nexec {real} "$@"\n')
        self.program.chmod(0o755)

    def end(self):
        for pid in map(int, self._pids.read_text().split()):
            with contextlib.suppress(OSError):
                if str(self.program).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


class Lab:
    """An adapter, for containers with an image "busybox", and what tests do with instances."""

    def __init__(self, env, **settings):
        self.env = env
        self.adapter = Adapter(env, **settings)
        self.adapter.start()
        self.client = self.adapter.client()
        if env.driver != "userns":
            return
        self.tree = busybox_tree(self.adapter.folder)
        self.tar = pack(self.tree, self.adapter.folder / "busybox.tar")
        self.client.call("image.add", key="busybox", format="root-tar", path=self.tar)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            if not self.adapter.is_running():
                if not error[0]:
                    raise Failure(f"the adapter ended with {self.adapter.process.returncode}: {self.adapter.text()}")
                self.adapter.start()
            self.remove_all()
            self.client.close()
            code = self.adapter.stop()
            if not error[0]:
                equal(code, 0, f"the adapter's exit code at SIGTERM ({self.adapter.text()})")
                self.nothing_left()
        finally:
            if self.adapter.is_running():
                self.adapter.kill()
            for place in reversed(self.adapter.mounts()):
                subprocess.run(["umount", "-l", place], check=False)
            shutil.rmtree(self.adapter.folder)

    def remove_all(self):
        with self.adapter.client() as client:
            for uuid in self.adapter.instances():
                client.call("instance.destroy", uuid=uuid, disks=True)

    def nothing_left(self):
        equal(self.adapter.instances(), [], "folders of instances")
        equal(self.adapter.mounts(), [], "mounts")
        eventually(lambda: not self.adapter.loops(), "the loop devices are gone")
        equal(self.adapter.holds(), [], "holds of images")
        equal(self.env.virsh("list", "--all", "--name").ok().out.split(), [], "domains")
        equal(self.adapter.leases(), [], "leases of ids")

    def again(self):
        """The adapter ends in order, and the next one begins."""
        equal(self.adapter.stop(), 0, "exit code")
        self.client.close()
        self.adapter.start()
        self.client = self.adapter.client()

    def call(self, method, **params):
        return self.client.call(method, **params)

    def spawn(self, spec=None, client=None, **more):
        spec = spec or instance()
        params = {"instance": spec, "image": {"key": "busybox", "format": "root-tar"}, "network": [], "volumes": [],
                  "files": [], "config_drive": [], "password": None, "power": True, **more}
        return (client or self.client).call("instance.spawn", **params)

    def destroy(self, spec, **more):
        return self.call("instance.destroy", uuid=spec["uuid"], **{"disks": True, **more})

    def sh(self, spec, script, code=0):
        """Inside, as its root."""
        program = os.path.join(self.env.daemon.build, "driver", "exec", "virt-userns-exec")
        result = subprocess.run([program, "-c", self.env.uri, spec["name"], "--", "/bin/sh", "-c", script],
                                capture_output=True, text=True, timeout=60 * daemon_module.TIME_FACTOR, stdin=subprocess.DEVNULL)
        equal(result.returncode, code, f"{script} inside: {result.stdout}{result.stderr}")
        return result.stdout

    def console(self, spec):
        found = self.call("instance.serial_console", uuid=spec["uuid"])
        return socket.create_connection((found["host"], found["port"]), 30 * daemon_module.TIME_FACTOR)

    def init(self, spec):
        """Of one that runs: the pid of its init."""
        return host_state.init_of(int(self.env.virsh("domid", spec["name"]).ok().out))

    def until_up(self, spec, times=1):
        eventually(lambda: self.client.output(spec["uuid"]).count(f"up {spec['name']}".encode()) >= times,
                   f"{spec['name']} has booted {times} times: {self.client.output(spec['uuid'])!r}")
