#!/usr/bin/env python3
"""<interface type='user'> in a domain of the system: passt runs as the domain's own id, never as root.

    tests/conformance/user_network.py --driver userns
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import equal, eventually, main, matches, test  # noqa: E402
import host_state  # noqa: E402
from world import HOST, INIT, LOOPBACKS, OTHER, WORLD, ask, forward, ip, knock, listening, named, pastas, udp, user_link, world  # noqa: E402


@test(["userns"])
def by_passt(env):
    xml = env.domain_xml("web", devices=user_link(forward("tcp", "start='8080' to='80'")), init="/sbin/script")
    script = pathlib.Path(re.search(r"source dir='([^']+)'", xml).group(1), "sbin/script")
    script.write_text(INIT)
    script.chmod(0o755)
    with world(), listening("::", 7777) as reached:
        ip("addr", "add", f"{OTHER}/32", "dev", "up0")  # goes with up0
        env.virsh("define", env.write_xml(xml)).ok()
        env.virsh("start", "web").ok()
        controller, = named("virtuserns-ctl")
        init = host_state.init_of(controller)
        equal(udp(init, WORLD, 53), "world heard hello")
        eventually(lambda: ask(HOST, 8080) == "hello", "the forwarded port answers")
        equal(ask(HOST, 8081), "ConnectionRefusedError")
        knock(init, [*LOOPBACKS, OTHER], 7777)
        eventually(lambda: reached, "the last of them arrives")
        equal(reached, [OTHER], "reached from inside")
        first = open(f"/proc/{init}/uid_map").read().split()[1]
        equal(len(pastas()), 2)
        for pid in pastas():
            equal(matches(open(f"/proc/{pid}/status").read(), r"^Uid:\s+(.*)$").group(1).split(), [first] * 4)
        env.virsh("destroy", "web").ok()
        # The network's keeper and the stem end by themselves, once the controller has.
        eventually(lambda: not pastas() and not named("virtuserns-"), "nothing is left")


if __name__ == "__main__":
    main()
