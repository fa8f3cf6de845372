"""Instances move between two hosts: two daemons and two adapters, each in a mount namespace of its own with its own folders of libvirt."""
import contextlib
import os
import pathlib
import shutil
import subprocess

from lab import USERNS, Adapter, Lab, instance
from api import ApiError, file, refused
from harness import check, contains, daemon_module, equal, eventually, main, test

FOLDERS = ("/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt")
# The second host: a holder of its namespace, in which its daemon and its adapter run.
BECOME_HOST = """set -e
for folder in %s; do mount -t tmpfs -o mode=755 tmpfs $folder; done
printf 'cgroup_parent = "%%s"\\n' "$1" > /etc/libvirt/virtusernsd.conf
echo ready
exec sleep infinity
""" % " ".join(FOLDERS)
WIRING = {"network": [], "volumes": []}
IMAGE = {"key": "busybox", "format": "root-tar"}


def enter(pid):
    return ["nsenter", "-t", str(pid), "-m", "--"]


class OtherHost:
    def __init__(self, lab):
        self.lab, env = lab, lab.env
        self.cgroup = f"{env.daemon.cgroup}-b"
        self.holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "sh", "-c", BECOME_HOST, "-", self.cgroup],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        equal(self.holder.stdout.readline(), b"ready\n")
        self.log = open(os.path.join(env.folder, "other-daemon.log"), "w")
        self.daemon = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *enter(self.holder.pid), *env.daemon.argv()], stdin=subprocess.DEVNULL,
                                       stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, "VIRTUSERNS_BUILD": env.daemon.build})
        self.adapter = Adapter(env, "other", host="b", migration_address=str(self.holder.pid))
        self.client = None
        first = lab.adapter
        first.settings.update(host="a", migration_address=str(os.getpid()))
        for fetching, fetched in ((first, self.adapter), (self.adapter, first)):
            fetching.settings["migration_command"] = " ".join(
                ["nsenter -t {address} -m --", first.argv[0], "--config", str(fetched.config), "send {uuid} {token}"])

    def begin(self):
        self.adapter.start(wrap=enter(self.holder.pid))
        self.lab.again()
        self.client = self.adapter.client()
        self.client.call("image.add", key="busybox", format="root-tar", path=self.lab.tar)

    def virsh(self, *words):
        done = subprocess.run([*enter(self.holder.pid), "virsh", "-c", "userns:///system", *words], capture_output=True, text=True, check=False)
        equal(done.returncode, 0, done.stderr)
        return done.stdout

    def sh(self, spec, script):
        program = os.path.join(self.lab.env.daemon.build, "driver", "exec", "virt-userns-exec")
        done = subprocess.run([*enter(self.holder.pid), program, spec["name"], "--", "/bin/sh", "-c", script], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, timeout=60 * daemon_module.TIME_FACTOR)
        equal(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def nothing_left(self):
        equal(self.adapter.instances(), [], "folders of instances of the other host")
        eventually(lambda: not self.adapter.loops(), "the other's loop devices are gone")
        equal(self.adapter.holds(), [], "holds of images of the other host")
        equal(self.virsh("list", "--all", "--name").split(), [], "domains of the other host")

    def end(self):
        with contextlib.suppress(Exception):
            for uuid in self.adapter.instances():
                self.client.call("instance.destroy", uuid=uuid, disks=True)
            self.client.close()
        if self.adapter.is_running():
            self.adapter.stop()
        for process in (self.daemon, self.holder):
            process.terminate()
            process.wait()
        self.log.close()
        shutil.rmtree(self.adapter.folder)
        for folder in [pathlib.Path("/sys/fs/cgroup", self.cgroup), *pathlib.Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}")]:
            for empty in (folder / "machine", folder):
                with contextlib.suppress(OSError):
                    empty.rmdir()


@contextlib.contextmanager
def two_hosts(env):
    with Lab(env) as lab:
        other = OtherHost(lab)
        try:
            other.begin()
            yield lab, other
        finally:
            other.end()


def out(lab, spec):
    return lab.call("instance.migrate_out", uuid=spec["uuid"], destination="b", timeout=0, retry_interval=1)["ticket"]


def arrive(other, spec, ticket, **more):
    return other.client.call("instance.migrate_in", instance=spec, ticket=ticket, **WIRING, **{"resize": False, "power": True, **more})


@test(drivers=USERNS)
def there_and_confirmed(env):
    with two_hosts(env) as (lab, other):
        spec = instance()
        ids = lab.spawn(spec, config_drive=[file("openstack/user_data", b"drive")])["ids"]
        lab.sh(spec, "echo kept > /root/kept; chown 5:6 /root/kept; head -c 3000000 /dev/urandom > /root/large")
        sum_before = lab.sh(spec, "md5sum < /root/large")
        ticket = out(lab, spec)
        equal(out(lab, spec), ticket, "the same request again")
        with refused("instance-not-found"):
            lab.client.info(spec["uuid"])
        equal(lab.call("instance.list"), [])
        equal(lab.call("instance.remains"), [{"uuid": spec["uuid"]}])
        with refused("unavailable", "waits here to be fetched"):
            arrive(other, spec, {**ticket, "token": "0" * 64})
        other.nothing_left()
        larger = {**spec, "flavor": {**spec["flavor"], "memory_mb": 96, "root_gb": 2}}
        equal(arrive(other, larger, ticket)["ids"], ids, "its ids go with it")
        equal(other.client.info(spec["uuid"])["state"], "running")
        equal(other.sh(spec, "cat /root/kept; stat -c '%u %g' /root/kept; cat /config-2/openstack/user_data").split(), ["kept", "5", "6", "drive"])
        equal(other.sh(spec, "md5sum < /root/large"), sum_before)
        check(int(other.sh(spec, "df -k / | tail -n1").split()[1]) > 1900 * 1024, "the disk did not grow")
        with refused("instance-exists"):
            arrive(other, larger, ticket)
        for _ in range(2):
            equal(lab.call("instance.migrate_confirm", uuid=spec["uuid"]), {})
        lab.nothing_left()
        equal(other.client.info(spec["uuid"])["state"], "running")
        # And home again.
        back = other.client.call("instance.migrate_out", uuid=spec["uuid"], destination="a", timeout=0, retry_interval=1)["ticket"]
        lab.call("instance.migrate_in", instance=larger, ticket=back, resize=False, power=False, **WIRING)
        equal(lab.client.state(spec["uuid"]), "shutdown")
        other.client.call("instance.migrate_confirm", uuid=spec["uuid"])
        other.nothing_left()
        lab.call("instance.power_on", uuid=spec["uuid"], **WIRING)
        equal(lab.sh(spec, "cat /root/kept").strip(), "kept")


@test(drivers=USERNS)
def there_and_taken_back(env):
    with two_hosts(env) as (lab, other):
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        ticket = out(lab, spec)
        arrive(other, spec, ticket)
        other.sh(spec, "echo lost > /root/lost; echo changed > /root/kept")
        other.client.call("instance.destroy", uuid=spec["uuid"], disks=True)
        other.nothing_left()
        for _ in range(2):
            lab.call("instance.migrate_revert", uuid=spec["uuid"], power=True, **WIRING)
            equal(lab.client.state(spec["uuid"]), "running")
        equal(lab.sh(spec, "cat /root/kept; ls /root/lost 2>&1 | grep -c lost:").split(), ["kept", "1"])
        # The ticket was of that journey.
        with refused("unavailable", "waits here to be fetched"):
            arrive(other, spec, ticket)


@test(drivers=USERNS)
def started_where_it_was(env):
    """The revert was lost with the scheduler, whose operator has the instance start: it is the one here that counts, and may move again."""
    for method, more in (("instance.reboot", {"type": "hard"}), ("instance.reboot", {"type": "soft"}), ("instance.power_on", {})):
        with two_hosts(env) as (lab, other):
            spec = instance()
            uuid = spec["uuid"]
            lab.spawn(spec)
            lab.sh(spec, "echo kept > /root/kept")
            former = out(lab, spec)
            for refused_method, params in (("instance.pause", {}), ("instance.power_off", {"timeout": 0, "retry_interval": 1})):
                with refused("instance-not-found", "has moved away"):
                    lab.call(refused_method, uuid=uuid, **params)
            lab.call(method, uuid=uuid, **more, **WIRING)
            equal(lab.client.info(uuid)["state"], "running")
            with refused("unavailable", "waits here to be fetched"):
                arrive(other, spec, former)
            lab.call("instance.migrate_confirm", uuid=uuid)  # too late
            equal(lab.client.info(uuid)["state"], "running")
            arrive(other, spec, out(lab, spec))
            equal(other.sh(spec, "cat /root/kept").strip(), "kept")
            lab.call("instance.migrate_confirm", uuid=uuid)
            lab.nothing_left()


@test(drivers=USERNS)
def whatever_dies_on_the_way(env):
    with two_hosts(env) as (lab, other):
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept; head -c 5000000 /dev/urandom > /root/large; sync")
        ticket = out(lab, spec)
        # The way to the other host: a command that fails, and one that is cut off in the middle of the disk.
        command = other.adapter.settings["migration_command"]
        script = pathlib.Path(env.folder, "cut-off")
        script.write_text(f'#!/bin/sh\n{command.replace("{address}", "$1").replace("{uuid}", "$2").replace("{token}", "$3")} | head -c 2000000\n')
        script.chmod(0o755)
        for way, says in (("false", "'false', said nothing"), ("/no/such/program", "no/such"), (f"{script} {{address}} {{uuid}} {{token}}", "cut off")):
            other.adapter.settings["migration_command"] = way
            again(other)
            try:
                arrive(other, spec, ticket)
                check(False, f"it came by {way}")
            except ApiError as error:
                contains(error.message, says)
            other.nothing_left()
        # The adapters themselves.
        other.adapter.settings["migration_command"] = command
        again(other)
        other.client.begin("instance.migrate_in", instance=spec, ticket=ticket, resize=False, power=True, **WIRING)
        eventually(other.adapter.instances, "it has begun")
        other.adapter.kill()
        other.client.close()
        other.adapter.start(wrap=enter(other.holder.pid))
        other.client = other.adapter.client()
        lab.adapter.kill()
        lab.adapter.start()
        lab.client = lab.adapter.client()
        equal(out(lab, spec), ticket, "what waits is in the journal")
        if other.adapter.instances():  # it was quicker than the death
            other.client.call("instance.destroy", uuid=spec["uuid"], disks=True)
        other.nothing_left()
        arrive(other, spec, ticket)
        equal(other.sh(spec, "cat /root/kept").strip(), "kept")
        lab.call("instance.migrate_confirm", uuid=spec["uuid"])


def again(other):
    other.client.close()
    equal(other.adapter.stop(), 0, "exit code")
    other.adapter.start(wrap=enter(other.holder.pid))
    other.client = other.adapter.client()


if __name__ == "__main__":
    main()
