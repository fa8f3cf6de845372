"""virt-userns-showinfo of domains that really run: their names, maps, ids and what their init may do."""
import json
import os
import pathlib
import re
import subprocess

from harness import check, contains, daemon_module, equal, main, test

USERNS = ("userns",)
NAME = f"showinfo-{os.getpid()}"  # others on this machine run domains too


def showinfo(env, *words, code=0):
    program = os.path.join(env.daemon.build, "tools", "showinfo", "virt-userns-showinfo")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60 * daemon_module.TIME_FACTOR,
                          env={**os.environ, "LC_ALL": "C"})
    equal(done.returncode, code, f"exit status of {words} ({done.stdout!r} {done.stderr!r})")
    return done.stdout


def maps(env, name):
    """(start, target, count) of the uids and gids, as libvirt prints them."""
    xml = env.virsh("dumpxml", name).ok().out
    return {kind: [tuple(map(int, line)) for line in
                   re.findall(rf"<{kind} start='(\d+)' target='(\d+)' count='(\d+)'/>", xml)] for kind in ("uid", "gid")}


def execute(env, *command):
    program = os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")
    return subprocess.run([program, "-c", env.uri, NAME, "--", *command], capture_output=True, text=True,
                          timeout=60 * daemon_module.TIME_FACTOR)


@test(USERNS)
def config_is_read_back(env):
    env.start(NAME)
    found = maps(env, NAME)
    check(found["uid"] and found["gid"], f"the running domain has maps: {found}")
    text = showinfo(env, "-c", env.uri, "config", NAME)
    equal(text, f"# {NAME}\n" + "".join(f"lxc.id_map = {kind[0]} {' '.join(map(str, line))}\n"
                                        for kind in ("uid", "gid") for line in found[kind]))
    path = env.write_xml(f"lxc.uts.name = {NAME}\nlxc.rootfs.path = /srv/web\n{text}")
    imported = env.virsh("domxml-from-native", "lxc-tools", path).ok().out
    for kind in ("uid", "gid"):
        for line in found[kind]:
            contains(imported, "<{} start='{}' target='{}' count='{}'/>".format(kind, *line))
    contains(showinfo(env, "-c", env.uri, "config"), f"# {NAME}\n")
    showinfo(env, "-c", env.uri, "config", "no-such-domain", code=1)


@test(USERNS)
def config_needs_chosen_ids(env):
    env.define(NAME)
    showinfo(env, "-c", env.uri, "config", NAME, code=1)


@test(USERNS)
def the_tree_knows_domains(env):
    env.start(NAME)
    def branches(node):
        yield node
        for child in node["children"]:
            yield from branches(child)
    tree = json.loads(showinfo(env, "--json", "--tree"))["tree"]
    ours = [node for node in branches(tree) if node["domain_uuid"] == env.uuid(NAME)]
    equal(len(ours), 1, "one namespace is the domain's")
    equal(ours[0]["domain"], NAME)
    equal([(line["inside"], line["outside"], line["count"]) for line in ours[0]["uid_map"]], maps(env, NAME)["uid"])
    # Started by root, and yet the kernel charges it to the domain's own id (docs/architecture.md).
    equal(ours[0]["owner"], maps(env, NAME)["uid"][0][1])
    contains(showinfo(env, "--tree"), f" domain '{NAME}', owner ")


@test(USERNS)
def processes_and_ids_of_a_domain(env):
    env.start(NAME)
    first = maps(env, NAME)["uid"][0][1]
    rows = json.loads(showinfo(env, "--json", "ps", NAME))["processes"]
    check(rows and all(row["domain"] == NAME and row["uid"] == first for row in rows), f"{rows}")
    # Of init only: what it runs may have ended meanwhile.
    inits = [row["pid"] for row in rows if row["inner_pid"] == 1]
    equal([os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in inits], ["busybox"])
    answer = json.loads(showinfo(env, "--json", "map", NAME, 33))["ids"]
    equal([(one["kind"], one["mapped"], one["levels"][-1]["id"]) for one in answer],
          [("uid", True, first + 33), ("gid", True, first + 33)])
    contains(" ".join(answer[0]["owners"]), f"running domain '{NAME}'")
    contains(" ".join(answer[0]["owners"]), f"lease of domain '{NAME}'")
    equal(json.loads(showinfo(env, "--json", "map", "--uid", "--host", env.uuid(NAME), first + 33))["ids"][0]["levels"][0]["id"], 33)
    showinfo(env, "map", NAME, 4000000000, code=1)


@test(USERNS)
def ids_of_a_group(env):
    """Whose they are is the group's; whose a process is, its namespace says."""
    top = ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:ids group='shop'/></userns:domain>"
           "</metadata>")
    names = (NAME, f"{NAME}-2")
    for name in names:
        env.start(name, top=top)
    equal(maps(env, names[0]), maps(env, names[1]))
    owners = " ".join(json.loads(showinfo(env, "--json", "map", NAME, 33))["ids"][0]["owners"])
    for who in ("lease of group 'shop'", *(f"running domain '{name}'" for name in names)):
        contains(owners, who)
    for name in names:
        rows = json.loads(showinfo(env, "--json", "ps", name))["processes"]
        check(rows and all(row["domain"] == name for row in rows), f"{rows}")


@test(USERNS)
def verdicts_are_those_of_a_command_inside(env):
    """A command that virt-userns-exec runs has the ids, capabilities and groups of init."""
    env.start(NAME)
    for path, access, command in (("/etc", "r", "ls /etc"), ("/no/such", "r", "cat /no/such"), ("/sys/kernel/notes", "r", "cat /sys/kernel/notes >/dev/null"),
                                  ("/dev/null", "rw", "cat </dev/null"), ("/tmp", "r", "ls /tmp"),
                                  ("/proc/sysrq-trigger", "w", ": >/proc/sysrq-trigger"), ("/proc/1/environ", "r", "cat /proc/1/environ"),
                                  ("/proc/sys/kernel/hostname", "w", ": >/proc/sys/kernel/hostname")):
        done = execute(env, "sh", "-c", command)
        is_allowed = done.returncode == 0
        # Nobody can read the filter of a group of cgroup v2, and explain says so.
        is_filtered = path == "/dev/null" and pathlib.Path("/sys/fs/cgroup/cgroup.procs").exists()
        document = json.loads(showinfo(env, "--json", "--access", access, "explain", NAME, "open", path,
                                       code=3 if is_filtered else 0 if is_allowed else 1))
        equal(document["answer"], "cannot be said" if is_filtered else "may" if is_allowed else "may not",
              f"{path}: {done.stderr} {document}")
    # Hard-wired in no program: tmpfs is mounted by everybody in his own, a disk's file system by nobody.
    for kind, code in (("tmpfs", 0), ("ext4", 1)):
        document = json.loads(showinfo(env, "--json", "explain", NAME, "mount", kind, code=code))
        equal(document["rule"], "capability" if code == 0 else "filesystem", f"{document}")
    showinfo(env, "explain", NAME, "signal", os.getpid(), code=1)
    showinfo(env, "explain", NAME, "bind", 80)
    contains(" ".join(json.loads(showinfo(env, "--json", "explain", NAME, "bind", 80))["facts"]), "seccomp")


main()
