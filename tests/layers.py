#!/usr/bin/env python3
"""The include rule of docs/architecture.md: who may include whom."""
import pathlib
import re
import sys

# folder prefix -> prefixes of ours it may include; the longest matching folder wins
RULES = {
    "conf/base/": ["conf/base/"],
    "conf/": ["conf/"],
    "xml/": ["xml/", "conf/"],
    "driver/driver": ["driver/events.h", "driver/driver.h", "conf/"],
    "driver/events": ["driver/events.h", "conf/"],
    "driver/domain/": ["driver/domain/", "driver/driver.h", "driver/events.h", "conf/"],
    "driver/rpc/": ["driver/rpc/", "driver/driver.h", "driver/events.h", "xml/", "conf/"],
    "driver/kernel/": ["driver/kernel/", "conf/"],
    "driver/userns/": ["driver/userns/", "driver/domain/", "driver/driver.h", "driver/events.h", "driver/controller/plan.h", "driver/controller/plug.h",
                       "driver/controller/protocol.h", "driver/kernel/apparmor.h", "driver/kernel/caps.h", "driver/kernel/facts.h",
                       "driver/kernel/seccomp_filter.h",
                       "xml/", "conf/"],
    "driver/links/": ["driver/links/", "driver/kernel/", "conf/"],
    "driver/controller/": ["driver/controller/", "driver/kernel/", "driver/links/request.h", "conf/"],
    "driver/image/": ["driver/image/", "conf/"],
    "driver/exec/": ["driver/exec/", "driver/rpc/message.h", "driver/rpc/protocol.h", "driver/rpc/error.h", "conf/"],
    "driver/test/": ["driver/test/", "driver/domain/", "driver/driver.h", "driver/events.h", "conf/"],
    "driver/client/": ["driver/client/", "conf/"],
    "driver/compute/": ["driver/compute/", "driver/client/", "driver/kernel/", "xml/", "conf/"],
    "driver/": ["driver/driver.h", "driver/events.h", "driver/module.h", "driver/daemon.h", "driver/single.h", "driver/rpc/", "driver/kernel/caps.h",
                "driver/links/broker.h", "conf/", "xml/"],
    "tools/showinfo/": ["tools/showinfo/", "driver/exec/client.h", "driver/exec/program.h", "driver/kernel/", "xml/", "conf/"],
    "tools/convert/": ["tools/convert/", "driver/client/", "driver/exec/program.h", "driver/image/superblock.h", "driver/controller/qcow2.h",
                       "driver/controller/jail.h", "driver/controller/storage.h", "driver/kernel/", "xml/", "conf/"],
    "tools/image/": ["tools/image/", "tools/convert/", "driver/exec/program.h", "driver/controller/storage.h", "driver/kernel/", "conf/"],
    "tools/drill/": ["tools/drill/", "driver/exec/client.h", "driver/exec/program.h", "conf/"],
    "tools/": ["tools/", "xml/", "conf/"],
}


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    bad = []
    count = 0
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix not in (".h", ".cpp") or name.startswith(("build", "tests/")):
            continue
        rule = max((prefix for prefix in RULES if name.startswith(prefix)), key=len, default=None)
        count += 1
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match or match.group(1) == "virtuserns_build.h":
                continue
            if rule is None or not match.group(1).startswith(tuple(RULES[rule])):
                bad.append(f"{name}:{number}: {name} may not include {match.group(1)}")
    print("\n".join(bad) or f"{count} files keep the include rule")
    return 1 if bad else 0


sys.exit(main())
