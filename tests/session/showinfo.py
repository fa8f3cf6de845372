#!/usr/bin/env python3
"""The talk's demonstration, looked at: virt-userns-showinfo of two users' containers, as root and as one of the users.

    tests/session/showinfo.py [-k TEST]
"""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import URI, id_map, main, test  # noqa: E402
from harness import check, contains, daemon_module, equal  # noqa: E402

MARK = str(os.getpid())  # others on this machine have an anna too
PROGRAM = "/home/.built/tools/showinfo/virt-userns-showinfo"


def as_root(*words):
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=60 * daemon_module.TIME_FACTOR)
    equal(done.returncode, 0, f"{words}: {done.stderr}")
    return done.stdout


def start_all(env):
    inits = {}
    for user in env.users:
        user.start_daemon()
        for number, name in enumerate(("c1", "c2")):
            name = f"{user.name}-{name}-{MARK}"
            user.start(name, user.root(name, "--first", user.first + 65536 * number))
            inits[name] = user.init(name)
    return inits


def domains(node, found):
    if node["domain"]:
        found[node["domain"]] = node
    for child in node["children"]:
        domains(child, found)
    return found


@test
def four_containers(env):
    """Root sees whose each is; the namespaces, ids and maps are the kernel's."""
    inits = start_all(env)
    seen = domains(json.loads(as_root("--json", "--tree"))["tree"], {})
    for name, pid in inits.items():
        user = env.anna if name.startswith("anna") else env.elsa
        check(name in seen, f"{name} is in the tree: {sorted(seen)}")
        equal(seen[name]["usersns"], os.stat(f"/proc/{pid}/ns/user").st_ino, name)
        equal([(line["inside"], line["outside"], line["count"]) for line in seen[name]["uid_map"]], id_map(pid), name)
        contains(as_root("--tree"), f"domain '{name}' of {user.name}, owner ")
        contains(as_root("--tree"), f"around domain '{name}', owner {user.name}")
        rows = json.loads(as_root("--json", "ps", name))["processes"]
        equal({row["uid"] for row in rows}, {id_map(pid)[0][1]}, f"uids of {name}")
        contains(" ".join(json.loads(as_root("--json", "map", "--uid", name, 33))["ids"][0]["owners"]),
                 f"user '{user.name}' (line ")
    rows = json.loads(as_root("--json", "ps", *inits.values()))["processes"]
    equal([row["domain"] for row in rows], [f"{name}-{MARK}" for name in ("anna-c1", "anna-c2", "elsa-c1", "elsa-c2")], "the slide's order")
    equal(len({row["usersns"] for row in rows}), 4)
    # The neighbour of the same user is as far away as anybody's (rows T2, T35).
    for other in (f"anna-c2-{MARK}", f"elsa-c1-{MARK}"):
        done = subprocess.run([PROGRAM, "explain", f"anna-c1-{MARK}", "signal", str(inits[other])], capture_output=True, text=True)
        equal(done.returncode, 1, done.stdout)


@test
def what_a_user_sees(env):
    """anna sees her own, and config asks her own daemon; of elsa's nothing."""
    inits = start_all(env)
    one, two, other = (f"{name}-{MARK}" for name in ("anna-c1", "anna-c2", "elsa-c1"))
    seen = domains(json.loads(env.anna.run(PROGRAM, "--json", "--tree").ok().out)["tree"], {})
    equal(sorted(name for name in seen if name.endswith(MARK)), [one, two])
    row = json.loads(env.anna.run(PROGRAM, "--json", "ps", inits[other]).ok().out)["processes"][0]
    equal((row["usersns"], row["domain"]), (None, None))
    env.anna.run(PROGRAM, "map", other, "0").fails(f"no running domain '{other}'")
    first = id_map(inits[two])[0][1]
    equal(env.anna.run(PROGRAM, "-c", URI, "config", two).ok().out,
          f"# {two}\nlxc.id_map = u 0 {first} 65536\nlxc.id_map = g 0 {first} 65536\n")
    lines = [line for line in env.anna.run(PROGRAM, "-c", URI, "config").ok().out.splitlines() if not line.startswith("#")]
    equal(len(lines), 4)
    answer = json.loads(env.anna.run(PROGRAM, "--json", "explain", one, "mount", "tmpfs").ok().out)
    equal(answer["answer"], "may")


if __name__ == "__main__":
    main()
