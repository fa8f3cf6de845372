"""Devices of running domains whose root wants another one, or what it has taken away to stay; and hosts that change meanwhile."""
import os
import pathlib
import stat
import threading

from harness import check, contains, equal, eventually, main, test
from image_files import USERNS, define, directory, init_of, sh, tree
from plugging import (BRIDGE, REFUSED, attach, character, detach, links, links_inside, mounts, nic, opens, ram, source,
                      spare_links, start)
from world import bridge

@test(drivers=USERNS)
def a_name_that_is_anothers_by_now(env):
    """The end on the host goes with the container's, and the next domain gets its name."""
    with bridge(BRIDGE, "10.9.9.1/24"):
        for how in ("attached", "of the start"):
            start(env, *([nic(7)] if how == "of the start" else []))
            if how == "attached":
                attach(env, nic(7)).ok()
            name = env.virsh("domiflist", "web").ok().table()[0][0]
            sh(env, "web", "ip link del eth0")
            eventually(lambda: name not in links(), "the host's end has gone")
            start(env, nic(8, f"<target dev='{name}'/>"), name="db")
            detach(env, nic(7)).ok()
            check(name in links() and "eth0" in links_inside(env, "db"), f"the other domain's link is gone ({how})")
            for domain in ("web", "db"):
                env.virsh("destroy", domain).ok()
                env.virsh("undefine", domain).ok()


@test(drivers=USERNS)
def a_macvlan_and_another_of_its_name(env):
    with spare_links("plugd0"):
        start(env)
        xml = nic(9, "<guest dev='mac0'/>", "direct", "<source dev='plugd0' mode='bridge'/>")
        attach(env, xml).ok()
        sh(env, "web", "ip link set mac0 down; ip link set mac0 name hidden; ip link add mac0 type bridge")
        detach(env, xml).ok()
        equal(sorted(links_inside(env)), ["lo", "mac0"])
        sh(env, "web", "ip link del mac0")
        attach(env, xml).ok()
        sh(env, "web", "ip link del mac0; ip link add mac0 type bridge")
        detach(env, xml).fails("removed it")
        check("mac0" in links_inside(env), "the container's own is gone")


@test(drivers=USERNS)
def ids_of_a_namespace_that_init_went_to(env):
    """With a map of its own making: what is plugged in is shifted as everything of the domain is."""
    here = source(env)
    root = pathlib.Path(tree(env))
    (root / "bin/unshare").symlink_to("busybox")
    init = root / "sbin/init"
    init.rename(root / "sbin/real")
    init.write_text("#!/bin/sh\n(sleep 0.3; for m in uid gid; do echo 0 1 1 >/proc/1/${m}_map; done; echo >/mapped) &\n"
                    "exec unshare -U -m /bin/sh -c 'while :; do sleep 1000 & wait $!; done'\n")
    init.chmod(0o755)
    define(env, "web", directory(root, "/"), parts="<userns:seccomp nesting='yes'/>")
    env.virsh("start", "web").ok()
    eventually((root / "mapped").exists, "init has its map")
    inside = pathlib.Path(f"/proc/{init_of(env, 'web')}")
    outer = int((inside / "status").read_text().split("Uid:")[1].split()[0])
    attach(env, directory(here, "/data")).ok()
    first = int(env.virsh("dumpxml", "web").ok().out.split("<uid start='0' target='")[1].split("'")[0])
    check(outer >= first, "init has ids of the domain")
    equal(os.stat(inside / "root/data/of-root").st_uid, first)


@test(drivers=USERNS)
def a_source_that_the_host_renames(env):
    here = source(env)
    start(env)
    attach(env, directory(here, "/data")).ok()
    here.rename(here.with_name("renamed"))
    detach(env, directory(here, "/data")).ok()
    check("/data" not in mounts(env), "it is mounted still")


@test(drivers=USERNS)
def mounts_that_the_container_moves(env):
    here = source(env)
    root = start(env)
    attach(env, directory(here, "/data")).ok()
    attach(env, ram("/ram")).ok()
    sh(env, "web", "mount --move /data /ram")
    detach(env, directory(here, "/data")).ok()
    equal([line[4] for line in mounts(env).values() if "plugged" in line[3]], [], "it is mounted still")
    check("/ram" in mounts(env), "another was taken away")
    attach(env, directory(here, "/ro", "<readonly/>")).ok()
    attach(env, directory(here, "/rw")).ok()
    sh(env, "web", "mount --move /rw /ro")
    detach(env, directory(here, "/rw")).ok()
    contains(mounts(env)["/ro"][5], "ro,")
    # One that shows what the root shows.
    attach(env, directory(root, "/again")).ok()
    sh(env, "web", "umount /again")
    detach(env, directory(root, "/again")).ok()
    check("/" in mounts(env), "the root is gone")


@test(drivers=USERNS)
def nodes_of_the_start(env):
    """The host's may be gone: the right goes all the same. And comes back."""
    path = pathlib.Path(env.folder, "node")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 229))
    start(env, character(path))
    equal(opens(env, path), "opened\n")
    path.unlink()
    detach(env, character(path)).ok()
    contains(opens(env, path), REFUSED)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 229))
    attach(env, character(path)).ok()
    equal(opens(env, path), "opened\n")
    detach(env, character(path)).ok()
    contains(opens(env, path), REFUSED)
    path.unlink()
    path.write_text("")


@test(drivers=USERNS)
def while_it_boots_again_and_again(env):
    """Who asks between two boots waits for the next."""
    start(env)
    said, is_over = [], threading.Event()

    def attach_and_detach():
        while not is_over.is_set():
            for act in (attach, detach):
                answer = act(env, ram("/ram"))
                if answer.code != 0:
                    said.append(answer.err)

    thread = threading.Thread(target=attach_and_detach)
    thread.start()
    try:
        for _ in range(25):
            env.virsh("reset", "web").ok()
    finally:
        is_over.set()
        thread.join()
    equal(said, [])


if __name__ == "__main__":
    main()
