#!/usr/bin/env python3
"""anna and elsa, two containers each, with Debian's virsh under their own accounts, and no daemon of root's.

    tests/session/two_users.py [-k TEST]
"""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import DELEGATED, id_map, main, namespace, test  # noqa: E402
from harness import check, equal  # noqa: E402


@test
def four_containers_at_once(env):
    """Each in ids of its owner's own, that nobody else has; each in a user namespace that its first id owns."""
    inits = {}
    for user in env.users:
        user.start_daemon()
        for name in ("one", "two"):
            user.start(name, user.root(name, "--first", user.first + (65536 if name == "two" else 0)))
            inits[user.name, name] = user.init(name)
    maps = {key: id_map(pid) for key, pid in inits.items()}
    for (owner, name), lines in maps.items():
        user = env.anna if owner == "anna" else env.elsa
        equal(len(lines), 1, f"lines of {owner}'s {name}")
        inside, outside, count = lines[0]
        equal((inside, count), (0, 65536))
        check(user.first <= outside and outside + count <= user.first + DELEGATED, f"{owner}'s {name} has {lines}")
        equal(id_map(inits[owner, name], "gid"), lines)
        equal(os.stat(f"/proc/{inits[owner, name]}").st_uid in (0, outside), True)
    firsts = sorted(lines[0][1] for lines in maps.values())
    check(all(b - a >= 65536 for a, b in zip(firsts, firsts[1:])), f"ranges overlap: {firsts}")
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts"):
        equal(len({namespace(pid, kind) for pid in inits.values()}), 4, f"{kind} namespaces")
    check(not os.path.exists("/run/libvirt/virtusernsd-sock"), "there is a daemon of root's")
    for user in env.users:
        equal(sorted(user.virsh("list", "--name").ok().out.split()), ["one", "two"])


if __name__ == "__main__":
    main()
