"""Open vSwitch of Debian in the cloud's network namespace, with a data path in user space: the kernel needs no module of it."""
import os
import subprocess

from processes import Program, program_environment, run
from settings import HOME, LOGS

FOLDER = HOME / "openvswitch"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
SOCKET = f"unix:{FOLDER}/db.sock"
PLACES = {"OVS_RUNDIR": str(FOLDER), "OVS_DBDIR": str(FOLDER), "OVS_LOGDIR": str(LOGS)}
LINKS = {"br-int", "ovs-netdev"}
PROGRAMS = ["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"]


def vsctl(*words: str) -> str:
    result = subprocess.run(["ovs-vsctl", f"--db={SOCKET}", "--timeout=20", *words], capture_output=True, text=True, check=True,
                            env=program_environment(PLACES))
    return result.stdout.strip()


def start(start_program) -> None:
    """`start_program`: of the cloud. os-vif and neutron's agent ask at the port that is its usual one."""
    FOLDER.mkdir()
    run(["ovsdb-tool", "create", f"{FOLDER}/conf.db", SCHEMA], LOGS / "ovsdb-tool.log")
    database: Program = start_program("ovsdb-server", [
        "ovsdb-server", "--no-chdir", f"{FOLDER}/conf.db", f"--remote=p{SOCKET}", "--remote=ptcp:6640:127.0.0.1"], PLACES)
    database.wait_until(lambda: os.path.exists(FOLDER / "db.sock"), "it listens", 30)
    vsctl("--no-wait", "init")
    start_program("ovs-vswitchd", ["ovs-vswitchd", "--no-chdir", "--disable-system", SOCKET], PLACES)
    vsctl("init")  # waits until it has read that
