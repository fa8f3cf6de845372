"""The policy of system calls, seen with virsh: defined, shown, at work in a container, and told in the domain's log."""
import os
import pathlib
import re
import shutil
import subprocess
import time

from harness import OURS, Failure, Skip, check, contains, daemon_module, equal, eventually, main, matches, test

URI = "urn:virtuserns:domain:1.0"


def policy(inside, attributes=""):
    return (f"<metadata><userns:domain xmlns:userns='{URI}'><userns:seccomp{attributes}>{inside}</userns:seccomp>"
            "</userns:domain></metadata>")


class Container:
    """Its init runs a script. A name for each test: the log outlives the domain."""

    def __init__(self, env, script, top="", name="web", programs=()):
        self.env, self.name = env, name
        xml = env.domain_xml(name, top=top, init="/sbin/script")
        self.root = pathlib.Path(re.search(r"source dir='([^']+)'", xml).group(1))
        for program in programs:
            shutil.copy(program, self.root / "bin")
        path = self.root / "sbin/script"
        path.write_text(f"#!/bin/sh\n{{\n{script}\n}} > /tmp/out 2>&1\n/bin/busybox mv /tmp/out /tmp/done\n"
                        "while :; do sleep 1000; done\n")
        path.chmod(0o755)
        env.virsh("define", env.write_xml(xml)).ok()
        env.virsh("start", name).ok()

    def output(self, timeout_s=20):
        done = self.root / "tmp/done"
        try:
            eventually(done.exists, "the script is done", timeout_s)
        except Failure as failure:
            running = [p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
            raise Failure(f"{failure}; so far {(self.root / 'tmp/out').read_text()!r}, "
                          f"{[r for r in running if b'busybox' in r]}") from None
        return done.read_text()

    def log(self):
        return pathlib.Path(f"/var/log/libvirt/userns/{self.name}.log").read_text(errors="replace")

    def refusals(self):
        return [line for line in self.log().splitlines() if " refused " in line]

    def controller(self):
        pid = int(matches(self.log(), r"started, controller (\d+)").group(1))
        contains(pathlib.Path(f"/proc/{pid}/comm").read_text(), "virtuserns-")
        return pid


def probe():
    path = pathlib.Path(os.environ.get("VIRTUSERNS_BUILD", "build"), "tests/root/probe")
    if not path.exists():
        raise Skip("tests/root/probe is not built")
    return path


@test(OURS)
def definition_is_checked_and_kept(env):
    def error(inside, attributes=""):
        return env.virsh("define", env.write_xml(env.domain_xml("bad", top="\n" + policy(inside, attributes)))).fails().err

    contains(error("<userns:allow syscall='opne'/>"), "line 2: unknown system call 'opne'")
    contains(error("<userns:allow syscall='open_by_handle_at'/>"), "'open_by_handle_at' can never be allowed")
    contains(error("<userns:deny syscall='execve'/>"), "'execve' cannot be denied")
    contains(error("<userns:allow syscall='clone3'/>"), "nesting='yes'")
    contains(error("", " log='maybe'"), "use 'yes' or 'no'")
    env.define("web", top=policy("<userns:allow syscall='keyctl'/><userns:deny syscall='ptrace'/>", " log='no'"))
    shown = env.virsh("dumpxml", "web").ok().out
    contains(shown, '<userns:allow syscall="keyctl"/>')
    contains(shown, '<userns:deny syscall="ptrace"/>')
    contains(shown, '<userns:seccomp log="no">')


@test(("userns",))
def refused_call_is_told_by_name_process_and_domain(env):
    container = Container(env, "busybox adjtimex\nbusybox adjtimex")
    contains(container.output(), "Operation not permitted")
    lines = eventually(container.refusals, "a line in the log")
    equal(len(lines), 1, "lines for two calls of the same program")
    matches(lines[0], r"^20\d\d-\d\d-\d\dT[0-9:]+Z refused (adjtimex|clock_adjtime), arguments 0x[0-9a-f]+ 0x[0-9a-f]+, "
                      r"of 'busybox', process \d+ \(\d+ on the host, user \d+\) in domain 'web'$")
    env.virsh("destroy", "web").ok()
    contains(container.refusals()[-1], ", and 1 times since the last line")


@test(("userns",))
def allow_takes_effect(env):
    container = Container(env, "busybox adjtimex", policy("<userns:allow syscall='adjtimex'/>"
                                                          "<userns:allow syscall='clock_adjtime'/>"), name="allowed")
    contains(container.output(), "time.tv_sec")
    equal(container.refusals(), [])


@test(("userns",))
def deny_takes_effect_and_is_told(env):
    container = Container(env, "hostname\nhostname other && echo changed", policy("<userns:deny syscall='sethostname'/>"), name="denied")
    output = container.output()
    contains(output, "denied\n")
    contains(output, "Operation not permitted")
    check("changed" not in output, output)
    contains(eventually(container.refusals, "a line in the log")[0], "refused sethostname")


@test(("userns",))
def user_namespaces_only_with_nesting(env):
    container = Container(env, "busybox unshare -U true && echo nested", name="flat")
    contains(container.output(), "Operation not permitted")
    contains(eventually(container.refusals, "a line in the log")[0], "refused unshare, arguments 0x10000000")
    container = Container(env, "busybox unshare -U true && echo nested", policy("", " nesting='yes'"), name="deep")
    contains(container.output(), "nested")


@test(("userns",))
def without_log_the_kernel_answers(env):
    container = Container(env, "busybox adjtimex", policy("", " log='no'"), name="unlogged")
    contains(container.output(), "Operation not permitted")
    equal(container.refusals(), [])


@test(("userns",))
def reboot_brings_a_new_listener(env):
    container = Container(env, "busybox adjtimex; hostname x; hostname y",
                          policy("<userns:deny syscall='sethostname'/>"), name="rebooted")
    container.output()
    (container.root / "tmp/done").unlink()
    env.virsh("reset", "rebooted").ok()
    equal(container.output().count("Operation not permitted"), 3)
    equal(len(container.refusals()), 2, "lines, which repeats of a call by the same program do not add to")
    env.virsh("destroy", "rebooted").ok()
    check(any("and 3 times since" in line for line in container.refusals()), container.refusals())


@test(("userns",))
def a_flood_costs_little_and_hurts_nobody_else(env):
    container = Container(env, "probe refused 4 & probe refused 4 & wait", programs=[probe()], name="flood")

    def ticks():
        fields = pathlib.Path(f"/proc/{container.controller()}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])
    eventually(lambda: container.refusals(), "the flood has begun")
    before, begun = ticks(), time.monotonic()
    time.sleep(2)
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)
    started = time.monotonic()
    env.virsh("domstate", "flood").ok()
    env.virsh("suspend", "flood").ok()
    env.virsh("resume", "flood").ok()
    check(time.monotonic() - started < 5 * daemon_module.TIME_FACTOR, "the controller is busy")
    counts = [int(n) for n in re.findall(r"^(\d+) refused with 1$", container.output(40), re.MULTILINE)]
    equal(len(counts), 2, container.output())
    check(sum(counts) < 8000, f"{counts} calls in 4 s: nothing holds them back")
    # Of an emulated processor each call takes ten times more.
    check(share < 0.25 or daemon_module.TIME_FACTOR > 1, f"the controller took {share:.0%} of a processor")
    check(len(container.refusals()) < 5, container.refusals())
    print(f"     {sum(counts)} refused calls in 4 s, the controller at {share:.1%} of a processor")


@test(("userns",))
def killed_controller_leaves_nobody_waiting(env):
    container = Container(env, "probe refused 100", programs=[probe()], name="killed")
    eventually(lambda: container.refusals(), "the flood has begun")
    os.kill(container.controller(), 9)
    eventually(lambda: env.state("killed")[0] == "shut off", "shut off")


APPLETS = """
cp -a /bin/busybox /tmp/b; chmod 600 /tmp/b; chown 1:1 /tmp/b; mv /tmp/b /tmp/c; ln /tmp/c /tmp/d; ln -s d /tmp/e; rm /tmp/c
mkdir /tmp/f; mkfifo /tmp/f/p; touch -d 2020-01-01 /tmp/f/t; stat /tmp/d; find / -xdev; df; du /tmp; truncate -s 1M /tmp/d
fallocate -l 65536 /tmp/g; flock /tmp/g true; sync; dd if=/dev/zero of=/tmp/h bs=4k count=2; readlink /tmp/e; ls -laR /tmp
tar -cf /tmp/x.tar /sbin; tar -tf /tmp/x.tar; gzip /tmp/x.tar; gunzip /tmp/x.tar.gz; sort /tmp/text; sha256sum /bin/busybox
grep -q text /tmp/text; sed -n 1p /tmp/text; awk 1 /tmp/text; wc /tmp/text; head /tmp/text; cmp /tmp/d /tmp/d
ps; nice -n 5 true; timeout 5 sleep 0.1; setsid true; chrt -p 1; taskset -p 1; ionice -c 3 true; top -b -n 1; free; uptime; date
id; chpst -u 1:1 true; kill -0 1; pidof busybox; renice 5 1; nohup true; env; usleep 10; time true; mesg; tty; stty -a
mount -t tmpfs none /tmp/f; mountpoint /tmp/f; umount /tmp/f; unshare -m true; unshare -n true; chroot / /bin/busybox true
ip address; ifconfig lo; ip link set lo up; netstat -an; route -n; arp -n; ping -c 1 127.0.0.1; ipcs; hostname
"""


@test(("userns",))
def ordinary_programs_meet_no_refusal(env):
    known = set(subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split())
    commands = [command.strip() for command in re.split("[;\n]", APPLETS) if command.strip().split(" ")[0] in known]
    check(len(commands) > 50, f"only {len(commands)} of the commands are in this busybox")
    # What fails for another reason (no such route) fails; what the policy refuses says so.
    script = "echo text > /tmp/text\n" + "\n".join(
        f"busybox timeout 5 busybox {command} > /tmp/said 2>&1 < /dev/null; busybox grep -H -i -e 'not permitted' -e "
        f"'not implemented' /tmp/said && echo FAILED '{command}'" for command in commands)
    container = Container(env, script, name="busybox")
    output = container.output(40)
    equal(output, "")
    equal(container.refusals(), [])


main()
