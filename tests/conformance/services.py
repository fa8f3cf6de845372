"""Row T54 of the talk: nginx, sshd and PostgreSQL as Debian packages them, in a domain, under its systemd, and used.

The tree is build-check/services.tar of the source, which tools/check --full makes
(tests/support/make-debian-tree build-check/services.tar services).
"""
import pathlib

from debian_domain import SOURCE, Debian
from harness import Skip, check, contains, equal, main, test

ARCHIVE = SOURCE / "build-check/services.tar"
USES = {
    "nginx": ("python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1/\").status)'", "200"),
    "ssh": ("mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N \"\" -f /root/.ssh/id_ed25519 && "
            "cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys && "
            "ssh -o StrictHostKeyChecking=no -o BatchMode=yes root@127.0.0.1 'echo came in as $(id -un) by $SSH_CONNECTION'",
            "came in as root by 127.0.0.1"),
    "postgresql": ("cd / && su postgres -c \"psql -Atc 'create table t (n int); insert into t values (41); select n + 1 from t'\"", "42"),
}


@test(("userns",))
def nginx_sshd_and_postgres(env):
    if not ARCHIVE.exists():
        raise Skip(f"there is no {ARCHIVE}: tools/check --full makes it")
    debian = Debian(env, "services", ARCHIVE)
    for service, (command, part) in USES.items():
        equal(debian.run(f"systemctl is-active {service}"), ("active\n", 0))
        output, status = debian.run(command)
        equal(status, 0, f"{service}: {output}")
        contains(output, part)
    # Under accounts of their own, which the packages have made: ids of the domain's.
    for account in ("postgres", "www-data"):
        check(int(debian.run(f"find /proc -maxdepth 1 -user {account} | wc -l")[0]) > 0, f"no process of {account}'s")
    first = int(pathlib.Path(f"/proc/{debian.init()}/uid_map").read_text().split()[1])
    check(first > 0, "root of the domain is root of the host")


main()
