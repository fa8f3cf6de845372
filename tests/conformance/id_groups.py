"""Domains that share a range of host ids, <userns:ids group=''>, and those that must not: real ones, by virsh."""
import os
import pathlib
import threading

from harness import check, contains, equal, eventually, main, matches, test
from image_files import USERNS, define, directory, init_of, sh, tree

LEASES = pathlib.Path("/var/lib/libvirt/userns/leases")
CONFIG = pathlib.Path("/etc/libvirt/virtusernsd.conf")
PROJECT = "0123456789abcdef0123456789abcdef"


def ids(group="", count=""):
    return f"<userns:ids{f' group={group!r}' if group else ''}{f' count={count!r}' if count else ''}/>"


def host_range(env, name):
    """As the kernel has it: first host id and count."""
    maps = [pathlib.Path(f"/proc/{init_of(env, name)}/{kind}_map").read_text().split() for kind in ("uid", "gid")]
    equal(maps[0], maps[1], f"maps of {name}")
    equal(maps[0][0], "0")
    return int(maps[0][1]), int(maps[0][2])


def begin(env, name, parts, *more):
    define(env, name, directory(tree(env)), *more, parts=parts)
    env.virsh("start", name).ok()
    return host_range(env, name)


def with_map(env, name, first, parts=""):
    metadata = f"<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>{parts}</userns:domain></metadata>"
    line = f"start='0' target='{first}' count='65536'/>"
    return env.write_xml(env.domain_xml(name, top=metadata if parts else "", extra=f"<idmap><uid {line}<gid {line}</idmap>"))


def restart(env):
    env.daemon.kill()
    env.daemon.start()


def leases():
    return sorted(path.name for path in LEASES.iterdir() if not path.name.startswith("."))


@test(drivers=USERNS)
def two_of_a_group_share_and_a_third_does_not(env):
    one, two = begin(env, "one", ids("shop")), begin(env, "two", ids("shop"))
    equal(two, one)
    for name, parts in (("three", ""), ("four", ids("other"))):
        first, count = begin(env, name, parts)
        check(first >= one[0] + one[1] or first + count <= one[0], f"{name} overlaps the group")
    # Shown, by whatever client.
    contains(env.virsh("dumpxml", "one").ok().out, f"target='{one[0]}'")
    # Named by a stranger it is refused, with the group and who holds it; by one of the group it is not.
    env.virsh("define", with_map(env, "stranger", one[0])).fails("of domain '", "of group 'shop'")
    env.virsh("create", with_map(env, "stranger", one[0], ids("other"))).fails("group 'shop'")
    env.virsh("create", with_map(env, "friend", one[0], ids("shop"))).ok()
    equal(host_range(env, "friend"), one)


@test(drivers=USERNS)
def a_volume_is_shared_in_a_group_only(env):
    """Its files are of ids that the group has: what one domain writes is another one's root's too, and nobody's to a stranger."""
    # It runs on: of a group of which nothing runs, the range is another one when a stranger's process has come to have ids of it.
    first, _ = begin(env, "keeper", ids("shop"))
    volume = pathlib.Path(env.folder, "volume")
    volume.mkdir()
    os.chown(volume, first, first)
    volume.chmod(0o700)
    for name, parts in (("one", ids("shop")), ("two", ids("shop")), ("three", "")):
        root = pathlib.Path(tree(env))
        (root / "volume").mkdir()
        define(env, name, directory(root), directory(volume, "/volume"), parts=parts)
        env.virsh("start", name).ok()
    sh(env, "one", "umask 077; echo ours > /volume/file")
    equal(os.stat(volume / "file").st_uid, first)
    equal(sh(env, "two", "cat /volume/file"), "ours\n")
    sh(env, "two", "echo more >> /volume/file")
    equal(sh(env, "one", "cat /volume/file"), "ours\nmore\n")
    equal(sh(env, "three", "cat /volume/file 2>&1 || echo refused", fails=True).split()[-1], "refused")


@test(drivers=USERNS)
def they_do_not_see_each_other(env):
    """The same ids, and still other processes, keys and limits of their control groups: what namespaces keep apart."""
    begin(env, "one", ids("shop"))
    begin(env, "two", ids("shop"))
    inits = init_of(env, "one"), init_of(env, "two")
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        check(os.readlink(f"/proc/{inits[0]}/ns/{kind}") != os.readlink(f"/proc/{inits[1]}/ns/{kind}"), f"one {kind} namespace")
    # Whatever a number there is, it is not the other's init: everything is asked to end, and the other goes on.
    sh(env, "one", "for pid in $(seq 2 400); do kill -9 $pid 2>/dev/null; done; true", fails=True)
    equal(init_of(env, "two"), inits[1])
    equal(env.state("two")[0], "running")
    # One that ends, ends alone.
    env.virsh("destroy", "one").ok()
    equal(env.state("two")[0], "running")
    sh(env, "two", "true")


@test(drivers=USERNS)
def a_range_is_kept_as_long_as_the_group_has_a_domain(env):
    one = begin(env, "one", ids("shop"))
    define(env, "two", directory(tree(env)), parts=ids("shop"))
    check("group-shop" in leases(), "the lease of the group")
    env.virsh("destroy", "one").ok()
    env.virsh("undefine", "one").ok()
    restart(env)
    check("group-shop" in leases(), "two is defined")
    env.virsh("start", "two").ok()
    equal(host_range(env, "two"), one)
    # Undefined while it runs it is the last one until it ends.
    env.virsh("undefine", "two").ok()
    check("group-shop" in leases(), "two runs")
    restart(env)
    check("group-shop" in leases(), "two runs still")
    equal(begin(env, "three", ids("shop")), one)
    env.virsh("destroy", "two").ok()
    env.virsh("destroy", "three").ok()
    env.virsh("undefine", "three").ok()
    eventually(lambda: "group-shop" not in leases(), "the lease goes with the last domain")


@test(drivers=USERNS)
def a_transient_one_takes_its_group_along(env):
    metadata = f"<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>{ids('brief')}</userns:domain></metadata>"
    env.virsh("create", env.write_xml(env.domain_xml("brief", top=metadata))).ok()
    check("group-brief" in leases(), "it runs")
    env.virsh("destroy", "brief").ok()
    eventually(lambda: "group-brief" not in leases(), "nobody is in the group")


@test(drivers=USERNS)
def killed_as_the_lease_is_taken(env):
    """The daemon dies the moment the lease is on disk: what it leaves is the group's, or nobody's and gone."""
    for name in ("one", "two"):
        define(env, name, directory(tree(env)), parts=ids("shop"))
    virsh = threading.Thread(target=env.virsh, args=("start", "one"))
    virsh.start()
    eventually(lambda: "group-shop" in leases(), "the lease is written")
    env.daemon.kill()
    virsh.join()
    env.daemon.start()
    check("group-shop" in leases(), "of domains that are defined")
    first = matches((LEASES / "group-shop").read_text(), r"^uid 0 (\d+) 65536$").group(1)
    env.virsh("start", "two").ok()
    equal(host_range(env, "two"), (int(first), 65536))
    if env.state("one")[0] != "running":
        env.virsh("start", "one").ok()
    equal(host_range(env, "one"), host_range(env, "two"))


@test(drivers=USERNS)
def what_is_wrong_is_said(env):
    define(env, "one", directory(tree(env)), parts=ids("shop", "131072"))
    env.virsh("start", "one").ok()
    equal(host_range(env, "one")[1], 131072)

    def refused(parts, *words):
        metadata = f"<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>{parts}</userns:domain></metadata>"
        env.virsh("define", env.write_xml(env.domain_xml("bad", top=metadata))).fails(*words)
    refused(ids("shop", "65536"), "group 'shop'", "131072")
    refused(ids("a/b"), "no name of a group")
    refused(ids("x" * 65), "no name of a group")
    refused(ids("shop") + "<userns:owner user='nobody'/>", "cannot be combined with <userns:owner>")
    equal(env.virsh("list", "--all", "--name").ok().out.split(), ["one"])


@test(drivers=USERNS)
def projects_of_nova(env):
    """Definitions as Nova's own driver writes them: with nothing of ours in them."""
    def instance(name, project):
        owner = f"<nova:owner><nova:user uuid='{PROJECT}'>a</nova:user><nova:project uuid='{project}'>p</nova:project></nova:owner>"
        metadata = (f"<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>{owner}"
                    "</nova:instance></metadata>")
        env.virsh("define", env.write_xml(env.domain_xml(name, top=metadata))).ok()
        env.virsh("start", name).ok()
        return host_range(env, name)
    check(instance("a", PROJECT) != instance("b", PROJECT), "by default each domain has its own")
    before = CONFIG.read_text()
    try:
        CONFIG.write_text(before + 'ids_per = "project"\n')
        restart(env)
        # What runs, runs on with what it has.
        first = instance("c", PROJECT)
        check(first not in (host_range(env, "a"), host_range(env, "b")), "the project's is another than what runs has")
        equal(instance("d", PROJECT), first)
        check(instance("e", "f" + PROJECT[1:]) != first, "another project")
        check(f"group-nova-{PROJECT}" in leases(), "the project's lease")
        env.virsh("destroy", "a").ok()
        env.virsh("start", "a").ok()
        equal(host_range(env, "a"), first, "from its next start on")
    finally:
        CONFIG.write_text(before)
        env.daemon.kill()
        env.daemon.start()
    # Back again: who runs in the project's range goes on there, and nobody comes to it.
    equal(host_range(env, "c"), first)
    check(begin(env, "stranger", "") != first, "what runs has it still")
    env.virsh("destroy", "d").ok()
    env.virsh("start", "d").ok()
    check(host_range(env, "d") != first, "its own now")


if __name__ == "__main__":
    main()
