"""Limits and sizes through virsh: live and configuration apart, in libvirt's names, units and words."""
import pathlib
import xml.etree.ElementTree as ET

from harness import OURS, Skip, check, equal, main, test


def params(outcome):
    return outcome.ok().fields()


@test(OURS)
def schedinfo(env):
    env.define("web")
    equal(params(env.virsh("schedinfo", "web"))["Scheduler"], "posix")
    env.virsh("schedinfo", "web", "--config", "--set", "cpu_shares=512", "--set", "vcpu_period=50000",
              "--set", "vcpu_quota=25000").ok()
    stored = params(env.virsh("schedinfo", "web", "--config"))
    equal((stored["cpu_shares"], stored["vcpu_period"], stored["vcpu_quota"]), ("512", "50000", "25000"))
    tune = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out).find("cputune")
    equal((tune.find("shares").text, tune.find("period").text, tune.find("quota").text), ("512", "50000", "25000"))
    env.virsh("schedinfo", "web", "--live", "--set", "cpu_shares=100").fails("domain is not running")
    env.virsh("start", "web").ok()
    env.virsh("schedinfo", "web", "--live", "--set", "cpu_shares=256").ok()
    equal(params(env.virsh("schedinfo", "web", "--live"))["cpu_shares"], "256")
    equal(params(env.virsh("schedinfo", "web", "--config"))["cpu_shares"], "512")
    env.virsh("schedinfo", "web", "--live", "--set", "vcpu_period=10").fails("invalid argument")
    equal(params(env.virsh("schedinfo", "web", "--live"))["vcpu_period"], "50000")


@test()
def memtune_reads(env):
    env.define("web")
    equal(params(env.virsh("memtune", "web")),
          {"hard_limit": "unlimited", "soft_limit": "unlimited", "swap_hard_limit": "unlimited"})


@test(("userns",))
def memtune_tells_the_limit_that_holds(env):
    env.start("web")
    env.virsh("memtune", "web", "--live", "--hard-limit", "200000").ok()
    equal(params(env.virsh("memtune", "web", "--live"))["hard_limit"], "200000")
    env.virsh("setmem", "web", "100000", "--live").ok()
    equal(params(env.virsh("memtune", "web", "--live"))["hard_limit"], "100000")


def group_file(env, name):
    found = [*pathlib.Path("/sys/fs/cgroup").glob(f"*/{env.daemon.cgroup}/machine/virtuserns-*/{name}"),
             *pathlib.Path("/sys/fs/cgroup").glob(f"{env.daemon.cgroup}/machine/virtuserns-*/{name}")]
    return found[0].read_text().strip() if found else None


@test(OURS)
def memtune_lifts_a_limit(env):
    env.start("web", memory_kib=262144)
    env.virsh("memtune", "web", "--live", "--config", "--hard-limit", "100000").ok()
    env.virsh("memtune", "web", "--live", "--config", "--hard-limit", "-1").ok()
    equal(params(env.virsh("memtune", "web", "--config"))["hard_limit"], "unlimited")
    equal(params(env.virsh("memtune", "web", "--live"))["hard_limit"], "unlimited")
    check(ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out).find("memtune/hard_limit") is None)
    # Another limit leaves this one alone.
    env.virsh("memtune", "web", "--live", "--soft-limit", "50000").ok()
    equal(params(env.virsh("memtune", "web", "--live"))["hard_limit"], "unlimited")
    if env.driver == "userns":
        bytes_ = group_file(env, "memory.limit_in_bytes") or group_file(env, "memory.max")
        check(bytes_ == "max" or int(bytes_) > 1 << 60, bytes_)


@test(("userns",))
def setmem_below_what_is_used(env):
    env.start("web")
    if group_file(env, "memory.limit_in_bytes") is None:
        raise Skip("cgroup v2 takes any limit, and ends processes")
    for command in (("setmem", "web", "16", "--live"), ("memtune", "web", "--live", "--hard-limit", "16")):
        outcome = env.virsh(*command).fails("domain 'web' uses ", " KiB", "limit of 16 KiB", "ask for more")
        check("resource busy" not in outcome.err, outcome.err)
    equal(env.virsh("dominfo", "web").ok().fields()["Max memory"], "262144 KiB")


@test(("userns",))
def blkio_weight_from_the_start(env):
    env.start("web", extra="<blkiotune><weight>300</weight></blkiotune>")
    if "no weights" in env.virsh("dominfo", "web").ok().out:
        check(not list(pathlib.Path("/sys/fs/cgroup").glob(f"*/{env.daemon.cgroup}/machine/virtuserns-*/blkio.bfq.weight")),
              "weights are there, and said not to be")
        return
    for file in pathlib.Path("/sys/fs/cgroup").glob(f"*/{env.daemon.cgroup}/machine/virtuserns-*/blkio.bfq.weight"):
        equal(file.read_text().strip(), "300")
    equal(params(env.virsh("blkiotune", "web"))["weight"], "300")


@test(OURS)
def vcpupin_is_no_kept_element(env):
    env.start("web")
    env.virsh("vcpupin", "web", "0", "0", "--live", "--config").ok()
    check("vcpupin" not in env.virsh("dominfo", "web").ok().out, "vcpupin is honoured, and said not to be")


@test()
def memtune_config(env):
    env.define("web")
    env.virsh("memtune", "web", "--config", "--hard-limit", "200000", "--soft-limit", "100000").ok()
    stored = params(env.virsh("memtune", "web", "--config"))
    equal((stored["hard_limit"], stored["soft_limit"], stored["swap_hard_limit"]), ("200000", "100000", "unlimited"))
    tune = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out).find("memtune")
    equal((tune.find("hard_limit").get("unit"), tune.find("hard_limit").text), ("KiB", "200000"))
    if env.is_reference:
        return
    env.virsh("memtune", "web", "--config", "--hard-limit", "-1").ok()
    equal(params(env.virsh("memtune", "web", "--config"))["hard_limit"], "unlimited")


@test(OURS)
def memtune_refuses_a_hard_limit_above_the_swap_limit(env):
    env.define("web")
    env.virsh("memtune", "web", "--config", "--hard-limit", "1000", "--swap-hard-limit", "2000").ok()
    env.virsh("memtune", "web", "--config", "--hard-limit", "3000").fails(
        "memory hard_limit tunable value must be lower than or equal to swap_hard_limit")
    equal(params(env.virsh("memtune", "web", "--config"))["hard_limit"], "1000")


@test(OURS)
def memtune_live(env):
    env.start("web")
    env.virsh("memtune", "web", "--live", "--hard-limit", "204800").ok()
    equal(params(env.virsh("memtune", "web", "--live"))["hard_limit"], "204800")
    equal(params(env.virsh("memtune", "web", "--config"))["hard_limit"], "unlimited")


@test()
def blkiotune(env):
    env.define("web")
    env.virsh("blkiotune", "web", "--config", "--weight", "300").ok()
    equal(params(env.virsh("blkiotune", "web", "--config"))["weight"], "300")
    env.virsh("blkiotune", "web", "--config", "--device-write-iops-sec", "/dev/sda,100,/dev/sdb,200").ok()
    equal(params(env.virsh("blkiotune", "web", "--config"))["device_write_iops_sec"], "/dev/sda,100,/dev/sdb,200")
    env.virsh("blkiotune", "web", "--config", "--device-write-iops-sec", "/dev/sda,0").ok()
    equal(params(env.virsh("blkiotune", "web", "--config"))["device_write_iops_sec"], "/dev/sdb,200")
    env.virsh("blkiotune", "web", "--config", "--device-weights", "/dev/sda").fails("unable to parse blkio device")


@test()
def setmem(env):
    env.define("web", memory_kib=131072)
    env.virsh("setmem", "web", "64M", "--config").ok()
    root = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out)
    equal((root.find("memory").text, root.find("currentMemory").text), ("131072", "65536"))
    env.virsh("setmem", "web", "256M", "--config").fails("annot set memory higher than max memory")
    env.virsh("setmaxmem", "web", "256M", "--config").ok()
    equal(env.virsh("dominfo", "web").ok().fields()["Max memory"], "262144 KiB")


@test(OURS)
def setmem_live(env):
    env.start("web", memory_kib=262144)
    env.virsh("setmem", "web", "128M", "--live").ok()
    root = ET.fromstring(env.virsh("dumpxml", "web").ok().out)
    equal((root.find("memory").text, root.find("currentMemory").text), ("262144", "131072"))
    env.virsh("setmaxmem", "web", "512M", "--live").fails("Cannot resize the max memory on an active domain")
    env.virsh("destroy", "web").ok()
    root = ET.fromstring(env.virsh("dumpxml", "web").ok().out)
    equal(root.find("currentMemory").text, "262144")


@test(("test", "reference"))
def setvcpus(env):
    env.define("web", vcpus=4)
    env.virsh("setvcpus", "web", "2", "--config").ok()
    equal(env.virsh("vcpucount", "web", "--config", "--current").ok().out.strip(), "2")
    equal(env.virsh("vcpucount", "web", "--config", "--maximum").ok().out.strip(), "4")
    env.virsh("setvcpus", "web", "5", "--config").fails("requested cpu amount exceeds maximum (5 > 4)" if env.driver == "test"
                                                      else "requested cpu amount exceeds")
    env.virsh("setvcpus", "web", "6", "--config", "--maximum").ok()
    root = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out)
    equal((root.find("vcpu").text, root.find("vcpu").get("current")), ("6", "2"))


@test(("test",))
def vcpupin(env):
    env.start("web", vcpus=2)
    env.virsh("vcpupin", "web", "1", "2-3", "--live", "--config").ok()
    rows = {row[0]: row[1] for row in env.virsh("vcpupin", "web").ok().table()}
    equal(rows, {"0": "0-15", "1": "2-3"})
    pin = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out).find("cputune/vcpupin")
    equal((pin.get("vcpu"), pin.get("cpuset")), ("1", "2-3"))
    env.virsh("vcpupin", "web", "7", "0").fails("error: ")


NIC = "<interface type='bridge'><mac address='52:54:00:00:00:%02x'/><source bridge='br0'/></interface>"


@test(("test",))
def devices_come_and_go(env):
    env.start("web")
    first, second = (env.write_xml(NIC % number) for number in (1, 2))
    env.virsh("attach-device", "web", first, "--live", "--config").ok()
    env.virsh("attach-device", "web", second, "--live").ok()
    equal(len(env.virsh("domiflist", "web").ok().table()), 2)
    equal([row[4] for row in env.virsh("domiflist", "web", "--inactive").ok().table()], ["52:54:00:00:00:01"])
    env.virsh("attach-device", "web", second, "--live").fails("error: ")
    env.virsh("domif-setlink", "web", "52:54:00:00:00:02", "down").ok()
    link = env.virsh("domif-getlink", "web", "52:54:00:00:00:02").ok().out
    check(link.strip().endswith("down"), link)
    env.virsh("detach-interface", "web", "bridge", "--mac", "52:54:00:00:00:01", "--live", "--config").ok()
    equal([row[4] for row in env.virsh("domiflist", "web").ok().table()], ["52:54:00:00:00:02"])
    equal(env.virsh("domiflist", "web", "--inactive").ok().table(), [])
    env.virsh("detach-device", "web", first, "--live").fails("device not found")


main()
