"""Volumes: block devices of the host that come to an instance, grow, are changed for others, are shared, or are its root."""
import contextlib
import json
import os
import pathlib
import subprocess

from lab import MIB, USERNS, Lab, instance, run
from api import refused
from harness import check, contains, equal, eventually, main, test


@contextlib.contextmanager
def volume(lab, name="vol", mark=b"", size=8 * MIB):
    """A loop device as the node of a volume, as iSCSI would bring one."""
    image = lab.adapter.folder / f"{name}.img"
    with image.open("wb") as file:
        file.write(mark)
        file.truncate(size)
    node = run("losetup", "-f", "--show", image).strip()
    try:
        yield node, image
    finally:
        run("losetup", "-d", node)


@test(drivers=USERNS)
def volumes_come_and_go(env):
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, image):
        spec = instance()
        uuid, one = spec["uuid"], {"device": "/dev/vdb", "path": node, "readonly": False, "boot_index": None, "serial": "s-1"}
        lab.spawn(spec)
        for _ in range(2):
            lab.call("instance.attach_volume", uuid=uuid, volume=one)
        equal(lab.sh(spec, "head -c 6 /dev/vdb"), "volume")
        lab.sh(spec, "echo written | dd of=/dev/vdb bs=512 seek=1 conv=fsync 2>/dev/null")
        contains(pathlib.Path(node).read_bytes()[512:520].decode(), "written")
        lab.call("instance.reboot", uuid=uuid, type="hard", network=[], volumes=[one])
        equal(lab.sh(spec, "head -c 6 /dev/vdb"), "volume")
        with image.open("ab") as file:
            file.truncate(16 * MIB)
        lab.call("instance.extend_volume", uuid=uuid, volume=one)
        equal(lab.sh(spec, "blockdev --getsize64 /dev/vdb").strip(), str(16 * MIB))
        with image.open("ab") as file:
            file.truncate(24 * MIB)
        lab.call("instance.extend_volume", uuid=uuid, volume={**one, "device": ""})
        equal(lab.sh(spec, "blockdev --getsize64 /dev/vdb").strip(), str(24 * MIB))
        with refused("invalid", "serial"):
            lab.call("instance.extend_volume", uuid=uuid, volume={**one, "device": "", "serial": ""})
        with refused("device-not-found"):
            lab.call("instance.extend_volume", uuid=uuid, volume={"device": "", "path": "/dev/null", "serial": "s-2"})
        with refused("invalid"):
            lab.call("instance.attach_volume", uuid=uuid, volume={**one, "path": "/dev/null"})
        lab.call("instance.detach_volume", uuid=uuid, volume=one)
        lab.sh(spec, "head -c 6 /dev/vdb", code=1)
        with refused("device-not-found"):
            lab.call("instance.detach_volume", uuid=uuid, volume=one)
        with refused("device-not-found"):
            lab.call("instance.extend_volume", uuid=uuid, volume=one)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_detach_whose_end_was_not_written_down(env):
    """The device is gone and the journal has it still, as after a death in between: the same request again comes to its end."""
    with Lab(env) as lab, volume(lab) as (node, _):
        spec = instance()
        one = {"device": "/dev/vdb", "path": node, "readonly": False, "boot_index": None, "serial": "s-1"}
        for scopes in (("--live", "--config"), ("--live",), ("--config",)):
            lab.spawn(spec, volumes=[one])
            env.virsh("detach-disk", spec["name"], "vdb", *scopes).ok()
            lab.call("instance.detach_volume", uuid=spec["uuid"], volume=one)
            check("vdb" not in env.virsh("dumpxml", spec["name"]).ok().out, "it is in the domain")
            check("vdb" not in env.virsh("dumpxml", "--inactive", spec["name"]).ok().out, "it is in the definition")
            lab.destroy(spec)


@test(drivers=USERNS)
def a_volume_that_is_read_only(env):
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _):
        spec = instance()
        lab.spawn(spec, volumes=[{"device": "/dev/vdc", "path": node, "readonly": True, "boot_index": None, "serial": ""}])
        equal(lab.sh(spec, "head -c 6 /dev/vdc"), "volume")
        lab.sh(spec, "echo x > /dev/vdc", code=1)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_volume_is_the_root(env):
    with Lab(env, root_volumes=True) as lab:
        image = lab.adapter.folder / "root.img"
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", lab.tree, image)
        node = run("losetup", "-f", "--show", image).strip()
        try:
            spec = instance()
            uuid = spec["uuid"]
            root = {"device": "/dev/vda", "path": node, "readonly": False, "boot_index": 0, "serial": "s"}
            with refused("invalid", "leave one of both out"):
                lab.spawn(spec, volumes=[root])
            with refused("invalid", "no root"):
                lab.spawn(spec, image=None)
            lab.spawn(spec, image=None, volumes=[root])
            lab.until_up(spec)
            lab.sh(spec, "echo kept > /root/kept")
            with refused("invalid-state"):
                lab.call("instance.detach_volume", uuid=uuid, volume=root)
            with refused("unsupported"):
                lab.call("instance.snapshot", uuid=uuid, path=str(lab.tree / "etc/shadow"))
            lab.call("instance.rescue", uuid=uuid, image={"key": "busybox", "format": "root-tar"}, network=[], volumes=[root],
                     files=[], config_drive=[], password=None)
            equal(lab.sh(spec, "cat /mnt/root/kept").strip(), "kept")
            lab.call("instance.unrescue", uuid=uuid)
            equal(lab.sh(spec, "cat /root/kept").strip(), "kept")
            lab.destroy(spec)
            contains(run("debugfs", "-R", "cat /root/kept", image), "kept")
        finally:
            run("losetup", "-d", node)


def ref(node, serial, device="/dev/vdb", **more):
    return {"device": device, "path": node, "readonly": False, "boot_index": None, "serial": serial, **more}


HOLD = "touch /root/hold; (exec 3<>/dev/vdb; while test -e /root/hold; do sleep 0.1; done) >/dev/null 2>&1 </dev/null &"


@test(drivers=USERNS)
def files_of_many_threads_are_looked_at_once(env):
    """As long as they are looked at nobody can destroy the instance: one of a few MiB took hours of the host's processor."""
    with Lab(env) as lab, volume(lab) as (node, _):
        spec, one = instance(flavor={"memory_mb": 512}), ref(node, "s-1")
        lab.spawn(spec, volumes=[one])
        build = env.daemon.build
        program = [os.path.join(build, "driver/exec/virt-userns-exec"), "-c", env.uri, spec["name"], "--"]
        subprocess.run([*program, "/bin/sh", "-c", "cat > /probe; chmod 755 /probe"], check=True,
                       input=pathlib.Path(build, "tests/root/probe").read_bytes())
        holder = subprocess.Popen([*program, "/probe", "open", "/probe", "900", "4000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            equal(holder.stdout.readline(), b"ready\n", "it has them open")
            before = processor_time(lab.adapter.process.pid)
            lab.call("instance.detach_volume", uuid=spec["uuid"], volume=one)
            spent = processor_time(lab.adapter.process.pid) - before
            check(spent < 2, f"{spent} s of processor time")
        finally:
            holder.kill()


def processor_time(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@test(drivers=USERNS)
def a_volume_that_is_in_use_stays(env):
    """Whether it came while the instance ran, or with its start: the kernel lets whoever has it open go on with it."""
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _):
        spec, one = instance(), ref(node, "s-1")
        uuid = spec["uuid"]
        lab.spawn(spec, volumes=[one])
        for begin in ("with its start", "while it runs"):
            lab.sh(spec, HOLD)
            eventually(lambda: "hold" in lab.sh(spec, "ls /root"), "the program holds it")
            with refused("busy", "the volume at '/dev/vdb' is in use in the instance, by process"):
                lab.call("instance.detach_volume", uuid=uuid, volume=one)
            equal(lab.sh(spec, "head -c 6 /dev/vdb"), "volume", begin)
            lab.call("instance.pause", uuid=uuid)
            with refused("busy"):
                lab.call("instance.detach_volume", uuid=uuid, volume=one)
            lab.call("instance.unpause", uuid=uuid)
            lab.sh(spec, "rm /root/hold; sleep 0.5")
            lab.call("instance.detach_volume", uuid=uuid, volume=one)
            lab.sh(spec, "head -c 6 /dev/vdb", code=1)
            if begin == "with its start":
                lab.call("instance.reboot", uuid=uuid, type="hard", network=[], volumes=[])
                lab.call("instance.attach_volume", uuid=uuid, volume=one)
        lab.destroy(spec)


# With the ids of the container, and the device where a look at the process's own descriptors does not show it.
HIDE = """import ctypes, mmap, os, sys, threading, time
how, node, user = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(node, os.O_RDWR)
if how == "mapping":
    kept = mmap.mmap(file, 4096)
    os.close(file)
os.setgroups([]), os.setresgid(user, user, user), os.setresuid(user, user, user)
def of_its_own():
    assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
    ready.set()
    time.sleep(1000)
ready = threading.Event()
if how == "thread":
    threading.Thread(target=of_its_own, daemon=True).start()
    ready.wait()
    os.close(file)
print("ready", flush=True)
time.sleep(1000)
"""


@test(drivers=USERNS)
def nobody_keeps_a_volume_by_hiding_it(env):
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _):
        spec, one = instance(), ref(node, "s-1")
        lab.spawn(spec, volumes=[one])
        user = int(pathlib.Path(f"/proc/{lab.init(spec)}/uid_map").read_text().split()[1])
        for how in ("mapping", "thread"):
            process = subprocess.Popen(["/usr/bin/python3", "-c", HIDE, how, node, str(user)], stdout=subprocess.PIPE, text=True)
            try:
                equal(process.stdout.readline(), "ready\n")
                with refused("busy", f"by process {process.pid} of this host"):
                    lab.call("instance.detach_volume", uuid=spec["uuid"], volume=one)
            finally:
                process.kill()
                process.communicate()
        lab.call("instance.detach_volume", uuid=spec["uuid"], volume=one)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_volume_is_swapped(env):
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, image), volume(lab, "new", b"other" * 4096, 16 * MIB) as (new, new_image), \
            volume(lab, "small", size=MIB) as (small, _):
        spec, one, other = instance(), ref(node, "s-1"), ref(new, "s-2")
        uuid = spec["uuid"]
        lab.spawn(spec, volumes=[one])
        init = lab.init(spec)

        def swap(**more):
            lab.call("instance.swap_volume", uuid=uuid, **{"volume": one, "next": other, **more})
        lab.sh(spec, "echo end | dd of=/dev/vdb bs=1M seek=7 conv=fsync 2>/dev/null")
        lab.sh(spec, HOLD)
        with refused("busy"):
            swap()
        lab.sh(spec, "rm /root/hold; sleep 0.5")
        with refused("invalid", "take one that is not smaller"):
            swap(next=ref(small, "s-3"))
        with refused("invalid-state", "at the same device"):
            swap(next=ref(new, "s-2", "/dev/vdc"))
        with refused("device-not-found"):
            swap(volume=ref(node, "s-1", "/dev/vdc"))
        equal((lab.client.state(uuid), lab.sh(spec, "head -c 6 /dev/vdb")), ("running", "volume"), "as it was after what was refused")
        for _ in range(2):
            swap()
        equal((lab.client.state(uuid), lab.init(spec)), ("running", init), "it runs on")
        equal(lab.sh(spec, "head -c 6 /dev/vdb; blockdev --getsize64 /dev/vdb"), f"volume{16 * MIB}\n")
        equal(lab.sh(spec, "dd if=/dev/vdb bs=1M skip=7 count=1 2>/dev/null | head -c 3"), "end")
        equal(new_image.read_bytes()[6:4096].strip(b"\0"), b"", "what was on the new volume before")
        lab.sh(spec, "echo new | dd of=/dev/vdb conv=fsync 2>/dev/null")
        equal((image.read_bytes()[:6], new_image.read_bytes()[:4]), (b"volume", b"new\n"))
        lab.call("instance.pause", uuid=uuid)
        with image.open("ab") as file:
            file.truncate(16 * MIB)
        run("losetup", "-c", node)
        swap(volume=other, next=one)
        equal(lab.client.state(uuid), "paused", "one that was paused before")
        lab.call("instance.unpause", uuid=uuid)
        lab.call("instance.reboot", uuid=uuid, type="hard", network=[], volumes=[one])
        equal(lab.sh(spec, "head -c 3 /dev/vdb"), "new")
        lab.destroy(spec)


@test(drivers=USERNS)
def a_volume_of_several_instances(env):
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _):
        # With the same ids as well: who has it open is another question than who may.
        together = {"extra_specs": {"userns:isolation": "project"}}
        first, second = (instance(name, flavor=together) for name in ("first", "second"))
        stranger = instance("stranger", project="q")
        alone, shared = ref(node, "s-1"), ref(node, "s-1", shared=True)
        lab.spawn(first, volumes=[alone])
        for spec in (second, stranger):
            lab.spawn(spec)
        for one in (alone, shared):
            with refused("invalid", f"is attached to instance {first['uuid']} here"):
                lab.call("instance.attach_volume", uuid=second["uuid"], volume=one)
        lab.call("instance.detach_volume", uuid=first["uuid"], volume=alone)
        for spec in (first, second):
            lab.call("instance.attach_volume", uuid=spec["uuid"], volume=shared)
        for one in (shared, ref(node, ""), ref("/dev/null", "s-1")):
            with refused("invalid", "of another project"):
                lab.call("instance.attach_volume", uuid=stranger["uuid"], volume=one)
            with refused("invalid", "of another project"):
                lab.call("instance.reboot", uuid=stranger["uuid"], type="hard", network=[], volumes=[one])
            with refused("invalid", "of another project"):
                lab.spawn(instance("late", project="q"), volumes=[one])
        lab.sh(first, "echo shared | dd of=/dev/vdb conv=fsync 2>/dev/null")
        equal(lab.sh(second, "head -c 6 /dev/vdb"), "shared")
        lab.sh(second, HOLD)
        lab.call("instance.detach_volume", uuid=first["uuid"], volume=shared)
        with refused("busy"):
            lab.call("instance.detach_volume", uuid=second["uuid"], volume=shared)
        for spec in (first, second, stranger):
            lab.destroy(spec)


@test(drivers=USERNS)
def an_attach_that_died_leaves_nothing(env):
    """The journal says that it began, the domain has the device, and nobody asks again: its device may be another's soon."""
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _), volume(lab, "new") as (new, _):
        spec, one, other = instance(), ref(node, "s-1"), ref(new, "s-2")
        uuid, name = spec["uuid"], spec["name"]
        lab.spawn(spec)
        journal = lab.adapter.state / "instances" / uuid / "instance.json"

        def die_with(source, arriving, *more):
            lab.adapter.kill()
            for words in more:
                env.virsh(*words, "--live", "--config").ok()
            env.virsh("attach-disk", name, source, "vdb", "--live", "--config").ok()
            journal.write_text(json.dumps({**json.loads(journal.read_text()), "arriving": arriving}))
            lab.client.close()
            lab.adapter.start()
            lab.client = lab.adapter.client()
        die_with(node, one)
        lab.sh(spec, "head -c 6 /dev/vdb", code=1)
        check("vdb" not in env.virsh("dumpxml", name, "--inactive").ok().out, "it is in the definition still")
        # Of a swap: the one that was to be replaced is back.
        lab.call("instance.attach_volume", uuid=uuid, volume=one)
        die_with(new, other, ("detach-disk", name, "vdb"))
        equal(lab.sh(spec, "head -c 6 /dev/vdb"), "volume")
        contains(env.virsh("dumpxml", name, "--inactive").ok().out, node)
        lab.call("instance.swap_volume", uuid=uuid, volume=one, next=other)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_detach_that_died_is_finished(env):
    """Whatever of it was done: what runs has it no more, the definition, or neither."""
    with Lab(env) as lab, volume(lab, mark=b"volume") as (node, _), volume(lab, "new") as (new, _):
        spec, one, other = instance(), ref(node, "s-1"), ref(new, "s-2")
        uuid, name = spec["uuid"], spec["name"]
        lab.spawn(spec)
        for places in (["--live"], ["--config"], ["--live", "--config"]):
            for method, params in (("detach_volume", {}), ("swap_volume", {"next": other})):
                lab.call("instance.attach_volume", uuid=uuid, volume=one)
                env.virsh("detach-disk", name, "vdb", *places).ok()
                lab.call(f"instance.{method}", uuid=uuid, volume=one, **params)
                check(node not in env.virsh("dumpxml", name, "--inactive").ok().out, f"{method}: it is in the definition still")
                if params:
                    equal(lab.sh(spec, "head -c 6 /dev/vdb"), "volume")
                    lab.call("instance.detach_volume", uuid=uuid, volume=other)
                lab.sh(spec, "head -c 6 /dev/vdb", code=1)
        lab.destroy(spec)


@test(drivers=USERNS)
def a_root_that_is_a_volume_is_the_operators_choice(env):
    with Lab(env) as lab, volume(lab) as (node, _):
        with refused("unsupported", "root_volumes = true"):
            lab.spawn(instance(), image=None, volumes=[ref(node, "s", "/dev/vda", boot_index=0)])
        equal((lab.adapter.instances(), lab.adapter.mounts()), ([], []), "what is left")


@test(drivers=USERNS)
def a_root_that_is_damaged(env):
    """It is repaired where that needs no decision, and else nobody's kernel reads it."""
    with Lab(env, root_volumes=True) as lab, volume(lab, mark=b"no file system", size=64 * MIB) as (node, image):
        root = ref(node, "s", "/dev/vda", boot_index=0)
        with refused("internal", "it has to be an ext4 that is sound"):
            lab.spawn(instance(), image=None, volumes=[root])
        equal((lab.adapter.instances(), lab.adapter.mounts()), ([], []), "what is left")
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", lab.tree, image)
        run("debugfs", "-w", "-R", "set_super_value free_blocks_count 5", image)
        spec = instance()
        lab.spawn(spec, image=None, volumes=[root])
        lab.until_up(spec)
        lab.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[root])
        lab.until_up(spec, 2)
        with refused("invalid", "and no root"):
            lab.spawn(instance("other"), volumes=[ref(node, "s", shared=True)])
        lab.destroy(spec)


if __name__ == "__main__":
    main()
