"""Instances over their life: spawned, switched off and on, paused, rescued, resized, and gone without a trace."""
import subprocess
import time

from lab import MIB, USERNS, Lab, instance
from api import file, refused
from harness import check, contains, equal, eventually, main, test



@test(drivers=USERNS)
def spawned_and_destroyed(env):
    with Lab(env) as lab:
        spec = instance("web", display_name="Web <1> & Co")
        ids = lab.spawn(spec)["ids"]
        lab.until_up(spec)
        info = lab.call("instance.info", uuid=spec["uuid"])
        equal((info["state"], info["vcpus"], info["max_memory_kb"], info["ids"]), ("running", 1, 64 * 1024, ids))
        equal(lab.call("instance.list"), [{"uuid": spec["uuid"], "name": "web", "state": "running"}])
        equal(lab.sh(spec, "read a b c </proc/self/uid_map; echo $a $b $c").split(), ["0", str(ids["first"]), str(ids["count"])])
        equal(lab.sh(spec, "hostname").strip(), "web")
        lab.sh(spec, "echo kept > /root/kept")
        equal(lab.spawn(spec)["ids"], ids, "the same request again")
        with refused("instance-exists"):
            lab.spawn({**spec, "hostname": "another"})
        for _ in range(2):
            equal(lab.destroy(spec), {})
        with refused("instance-not-found"):
            lab.call("instance.info", uuid=spec["uuid"])
        equal(lab.call("instance.list"), [])
        lab.nothing_left()


@test(drivers=USERNS)
def a_disk_is_made_ahead_for_the_next_of_its_size(env):
    with Lab(env) as lab:
        spares = lab.adapter.state / "spares"

        def waiting():  # those that nobody works on any more
            return [path.stat().st_ino for path in spares.iterdir() if time.time() - path.stat().st_mtime > 2]
        lab.spawn()
        ahead, = eventually(waiting, "a disk waits")
        spec = instance("second")
        lab.spawn(spec)
        equal((lab.adapter.state / "instances" / spec["uuid"] / "disk.img").stat().st_ino, ahead)
        lab.until_up(spec)
        lab.again()
        equal(list(spares.iterdir()), [], "disks that wait after a restart")


@test(drivers=USERNS)
def off_and_on(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec, power=False)
        equal(lab.client.state(uuid), "shutdown")
        equal(lab.adapter.mounts(), [], "mounts of one that is off")
        for _ in range(2):
            lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
            equal(lab.client.state(uuid), "running")
        lab.until_up(spec)
        lab.sh(spec, "echo kept > /root/kept")
        ids = lab.client.info(uuid)["ids"]
        for timeout in (60, 0):
            lab.call("instance.power_off", uuid=uuid, timeout=timeout, retry_interval=1)
            equal(lab.client.state(uuid), "shutdown")
            equal(lab.adapter.mounts(), [], "mounts of one that is off")
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        equal(lab.sh(spec, "cat /root/kept").strip(), "kept")
        equal(lab.client.info(uuid)["ids"], ids)
        lab.until_up(spec, 2)
        for number, how in enumerate(("soft", "hard", "hard")):
            before = lab.init(spec)
            lab.call("instance.reboot", uuid=uuid, type=how, network=[], volumes=[])
            equal(lab.client.state(uuid), "running")
            check(lab.init(spec) != before, f"the same init after a {how} reboot")
            lab.until_up(spec, 3 + number)
            equal(lab.sh(spec, "cat /root/kept").strip(), "kept")
        lab.call("instance.power_off", uuid=uuid, timeout=0, retry_interval=1)
        lab.call("instance.reboot", uuid=uuid, type="soft", network=[], volumes=[])
        equal(lab.client.state(uuid), "running")
        with refused("invalid"):
            lab.call("instance.reboot", uuid=uuid, type="warm", network=[], volumes=[])


@test(drivers=USERNS)
def paused_and_suspended(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        for method, state in (("pause", "paused"), ("pause", "paused"), ("unpause", "running"), ("unpause", "running"),
                              ("suspend", "suspended"), ("suspend", "suspended")):
            equal(lab.call(f"instance.{method}", uuid=uuid), {})
            equal(lab.client.state(uuid), state, method)
        lab.again()
        equal(lab.client.state(uuid), "suspended", "after a restart of the adapter")
        with refused("invalid-state"):
            lab.call("instance.unpause", uuid=uuid)
        for _ in range(2):
            lab.call("instance.resume", uuid=uuid, network=[], volumes=[])
            equal(lab.client.state(uuid), "running")
        lab.call("instance.suspend", uuid=uuid)
        lab.call("instance.power_off", uuid=uuid, timeout=5, retry_interval=1)
        equal(lab.client.state(uuid), "shutdown")
        for method in ("pause", "unpause", "suspend"):
            with refused("invalid-state"):
                lab.call(f"instance.{method}", uuid=uuid)
        with refused("instance-not-found"):
            lab.call("instance.pause", uuid=instance()["uuid"])


@test(drivers=USERNS)
def a_suspension_ends_with_what_was_suspended(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)

        def only_paused_afterwards(method, **params):
            lab.call("instance.suspend", uuid=uuid)
            lab.call(f"instance.{method}", uuid=uuid, **params)
            equal(lab.client.state(uuid), "running", method)
            lab.call("instance.pause", uuid=uuid)
            equal(lab.client.state(uuid), "paused", f"after {method}")
            lab.call("instance.unpause", uuid=uuid)
        only_paused_afterwards("reboot", type="soft", network=[], volumes=[])
        only_paused_afterwards("reboot", type="hard", network=[], volumes=[])
        only_paused_afterwards("rescue", image={"key": "busybox", "format": "root-tar"}, network=[], volumes=[], files=[],
                               config_drive=[], password=None)
        only_paused_afterwards("unrescue")
        # It ended without this program: by the machine's reboot, say.
        lab.call("instance.suspend", uuid=uuid)
        env.virsh("destroy", spec["name"]).ok()
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        lab.call("instance.pause", uuid=uuid)
        equal(lab.client.state(uuid), "paused", "after power_on")


@test(drivers=USERNS)
def one_whose_images_cannot_be_looked_through_is_not_half_removed(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        facts = lab.adapter.state / "images/facts"
        facts.rename(facts.with_name("elsewhere"))
        facts.write_text("")
        with refused("internal", "facts"):
            lab.destroy(spec)
        facts.unlink()
        facts.with_name("elsewhere").rename(facts)
        equal(lab.adapter.holds(), [f"busybox/{spec['uuid']}"])
        lab.destroy(spec)
        lab.nothing_left()


@test(drivers=USERNS)
def files_config_drive_and_password(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec, files=[file("/etc/motd", b"hello\0\xff"), file("/new/deep/one", b"x", mode=0o600)],
                  config_drive=[file("openstack/latest/meta_data.json", b"{}"), file("user", b"data")], password="secret")
        equal(lab.sh(spec, "stat -c '%u %g %a %s' /etc/motd /new/deep/one /new/deep").splitlines()[:2],
              ["0 0 644 7", "0 0 600 1"])
        equal(lab.sh(spec, "cat /config-2/openstack/latest/meta_data.json /config-2/user"), "{}data")
        contains(lab.sh(spec, "grep ' /config-2 ' /proc/mounts"), " ro,")
        lab.sh(spec, "echo x > /config-2/user", code=1)
        contains(lab.sh(spec, "grep ^root: /etc/shadow"), "root:$6$")
        equal(lab.sh(spec, "grep ^user: /etc/shadow; stat -c '%u %g %a' /etc/shadow").splitlines(),
              ["user:*:19000:0:99999:7:::", "0 0 640"])


@test(drivers=USERNS)
def rescued(env):
    with Lab(env) as lab:
        spec = instance()
        uuid, image = spec["uuid"], {"key": "busybox", "format": "root-tar"}
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        for _ in range(2):
            lab.call("instance.rescue", uuid=uuid, image=image, network=[], volumes=[], files=[file("/etc/motd", b"rescue")],
                     config_drive=[], password="pw")
            equal(lab.client.state(uuid), "running")
            equal(lab.sh(spec, "cat /etc/motd /mnt/root/kept").strip(), "rescuekept")
        lab.sh(spec, "echo more > /mnt/root/more; echo lost > /root/lost")
        lab.again()
        for _ in range(2):
            equal(lab.call("instance.unrescue", uuid=uuid), {})
        equal(lab.sh(spec, "cat /root/kept /root/more; ls /root/lost 2>&1 | grep -c lost:").split(), ["kept", "more", "1"])


@test(drivers=USERNS)
def a_hard_reboot_ends_a_rescue(env):
    """As who asks for it takes the instance for one that is not rescued: the answer to its unrescue was lost."""
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        lab.call("instance.rescue", uuid=spec["uuid"], image={"key": "busybox", "format": "root-tar"}, network=[], volumes=[], files=[],
                 config_drive=[], password=None)
        lab.sh(spec, "echo lost > /root/lost")
        lab.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[])
        equal(lab.sh(spec, "cat /root/kept; ls /root /mnt").split(), ["kept", "/mnt:", "/root:", "kept"])


@test(drivers=USERNS)
def resized(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        larger = {**spec["flavor"], "memory_mb": 96, "vcpus": 2, "root_gb": 2}
        with refused("invalid-state"):
            lab.call("instance.resize", uuid=uuid, flavor=larger)
        lab.call("instance.power_off", uuid=uuid, timeout=0, retry_interval=1)
        for _ in range(2):
            lab.call("instance.resize", uuid=uuid, flavor=larger)
        with refused("unsupported", "smaller"):
            lab.call("instance.resize", uuid=uuid, flavor=spec["flavor"])
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        info = lab.client.info(uuid)
        equal((info["vcpus"], info["max_memory_kb"]), (2, 96 * 1024))
        equal(lab.sh(spec, "cat /root/kept").strip(), "kept")
        check(int(lab.sh(spec, "df -k / | tail -n1").split()[1]) > 1900 * 1024, "the disk is not larger")


@test(drivers=USERNS)
def rebuilt(env):
    """Between its end and its new beginning the ids are nobody else's."""
    with Lab(env) as lab:
        spec, other = instance("one"), instance("other")
        ids = lab.spawn(spec, config_drive=[file("a/b", b"y")])["ids"]
        lab.sh(spec, "echo old > /root/old")
        lab.destroy(spec, rebuild=True)
        with refused("instance-not-found"):
            lab.client.info(spec["uuid"])
        equal(lab.adapter.mounts(), [], "mounts")
        with refused("unsupported", "overlaps"):
            lab.spawn({**other, "ids": ids})
        equal(lab.spawn({**spec, "ids": ids})["ids"], ids)
        equal(lab.sh(spec, "ls /root").strip(), "")
        lab.destroy(spec, rebuild=True)
        lab.again()
        equal(lab.adapter.instances(), [], "what nobody came back to")
        equal(lab.spawn({**other, "ids": ids})["ids"], ids)
        lab.destroy(other)


@test(drivers=USERNS)
def the_disk_ends_with_the_flavor(env):
    with Lab(env, default_disk_gb=1) as lab:
        one, other = instance("one", flavor={"root_gb": 0}), instance("two", flavor={"root_gb": 0})
        first, second = lab.spawn(one)["ids"], lab.spawn(other)["ids"]
        check(first["first"] + first["count"] <= second["first"] or second["first"] + second["count"] <= first["first"],
              f"ids overlap: {first} {second}")
        kilobytes = int(lab.sh(one, "df -k / | tail -n1").split()[1])
        check(850 * 1024 < kilobytes < 1024 * 1024, f"df says {kilobytes} KiB of 1 GiB")
        # Allocated, not written: the host's own disk is not filled to show it. (A hole would not count: fallocate.)
        contains(lab.sh(one, "fallocate -l 2G /root/large 2>&1; echo $?"), "No space left")
        lab.sh(one, "rm -f /root/large; cd /root; for i in 1 2 3 4 5 6 7 8 9; do fallocate -l 100M f$i || exit 1; done")
        lab.sh(one, "fallocate -l 200M /root/last", code=1)
        used = sum(path.stat().st_blocks * 512 for path in lab.adapter.state.glob("instances/*/disk.img"))
        check(used < 200 * MIB, f"{used} bytes of the host's disk are used")
        lab.sh(other, "echo free > /root/file")
        for name in ("one", "two"):
            other_uuid = (other if name == "one" else one)["uuid"]
            lab.sh(one if name == "one" else other, f"grep -r {other_uuid} /proc/self/mountinfo", code=1)
        lab.sh(other, "ls /root/f1", code=1)


@test(drivers=USERNS)
def one_that_ended_while_another_runs_leaves_nothing(env):
    with Lab(env) as lab:
        one, other = instance("one"), instance("two")
        lab.spawn(one)
        lab.spawn(other)
        lab.destroy(one)
        eventually(lambda: len(lab.adapter.loops()) == 1, "only the other's loop device is there")
        equal(lab.client.state(other["uuid"]), "running")


@test(drivers=USERNS)
def resized_here_to_a_disk_that_is_named(env):
    """One of the default size may be larger, and keeps its size."""
    with Lab(env) as lab:
        spec = instance()
        spec["flavor"]["root_gb"] = 0
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        size = lab.sh(spec, "df -k / | tail -n 1").split()[1]
        ticket = lab.call("instance.migrate_out", uuid=uuid, destination="127.0.0.1", timeout=0, retry_interval=1)["ticket"]
        changed = {**spec, "flavor": {**spec["flavor"], "root_gb": 1}}
        lab.call("instance.migrate_in", instance=changed, ticket=ticket, network=[], volumes=[], resize=True, power=True)
        equal(lab.sh(spec, "cat /root/kept").strip(), "kept")
        equal(lab.sh(spec, "df -k / | tail -n 1").split()[1], size, "its size")
        lab.call("instance.migrate_confirm", uuid=uuid)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_resize_here_whose_end_was_lost(env):
    """An operator has set the state: the scheduler has it moved again, or deleted, without a confirmation."""
    def resize(lab, spec, memory_mb):
        ticket = lab.call("instance.migrate_out", uuid=spec["uuid"], destination="127.0.0.1", timeout=0, retry_interval=1)["ticket"]
        changed = {**spec, "flavor": {**spec["flavor"], "memory_mb": memory_mb}}
        lab.call("instance.migrate_in", instance=changed, ticket=ticket, network=[], volumes=[], resize=True, power=True)

    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.sh(spec, "echo first > /root/kept")
        resize(lab, spec, 80)
        lab.sh(spec, "echo second > /root/kept")
        resize(lab, spec, 96)
        equal(lab.sh(spec, "cat /root/kept").strip(), "second")
        lab.sh(spec, "echo third > /root/kept")
        # A revert goes back to where the last one began, however often it is asked for.
        for _ in range(2):
            lab.call("instance.destroy", uuid=uuid, disks=True, revert=True)
            with refused("instance-not-found", "has moved away"):
                lab.call("instance.pause", uuid=uuid)
        lab.call("instance.migrate_revert", uuid=uuid, network=[], volumes=[], power=True)
        equal(lab.sh(spec, "cat /root/kept").strip(), "second")
        equal(lab.call("instance.diagnostics", uuid=uuid)["memory"]["maximum_mb"], 80)
        # A client of 1.2 says nothing of it.
        resize(lab, spec, 96)
        lab.call("instance.destroy", uuid=uuid, disks=True)
        lab.call("instance.migrate_revert", uuid=uuid, network=[], volumes=[], power=True)
        # What keeps the disk is no revert.
        resize(lab, spec, 96)
        lab.sh(spec, "echo last > /root/kept")
        lab.call("instance.destroy", uuid=uuid, disks=False, revert=False)
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        equal(lab.sh(spec, "cat /root/kept").strip(), "last")
        # And one that is deleted leaves nothing.
        resize(lab, spec, 80)
        lab.call("instance.destroy", uuid=uuid, disks=True, revert=False)
        lab.nothing_left()


@test(drivers=USERNS)
def a_disk_is_never_mounted_twice(env):
    """What looks around in a mount namespace of its own keeps a disk in use that is unmounted here: it must not be written by two."""
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept")
        visitor = subprocess.Popen(["unshare", "-m", "sh", "-c", "echo ready; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            equal(visitor.stdout.readline(), b"ready\n")
            lab.call("instance.power_off", uuid=uuid, timeout=0, retry_interval=1)
            equal(lab.adapter.mounts(), [])
            equal(len(lab.adapter.loops()), 1, "loop devices")
            with refused("busy"):
                lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
            with refused("busy"):
                lab.call("instance.resize", uuid=uuid, flavor={**spec["flavor"], "root_gb": 2})
        finally:
            visitor.communicate(b"\n")
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        equal(len(lab.adapter.loops()), 1, "loop devices")
        equal(lab.sh(spec, "cat /root/kept").strip(), "kept")


@test(drivers=USERNS)
def instances_outlive_the_adapter(env):
    with Lab(env) as lab:
        spec, off = instance("on"), instance("off")
        lab.spawn(spec)
        lab.spawn(off, power=False)
        before = lab.init(spec)
        lab.again()
        equal(sorted(each["state"] for each in lab.call("instance.list")), ["running", "shutdown"])
        equal(lab.init(spec), before)
        equal(lab.sh(spec, "echo there").strip(), "there")


if __name__ == "__main__":
    main()
