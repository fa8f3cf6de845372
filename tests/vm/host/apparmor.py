#!/usr/bin/env python3
"""AppArmor: the profiles are loaded, each program is in its own, what libvirt's clients are told is true, and a domain
without the profile runs as before. One line for each check. After it nothing is loaded any more."""
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (BUILD, SOURCE, URI, check, did, eventually, finish, init_pid, install, make_domain, run,  # noqa: E402
                          show, start_service, virsh)

PROFILES = "/etc/apparmor.d/virtuserns"


def label(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip("\n\0")
    except OSError as reason:
        return str(reason)


def controller_pid():
    return int(virsh("domid", "web").stdout.strip() or 0)


def denials():
    return run("journalctl", "-b", "-q", "--grep", 'apparmor="DENIED"').stdout.strip()


def inside(command):
    return run(str(BUILD / "driver/exec/virt-userns-exec"), "-c", URI, "web", "--", "/bin/sh", "-c", command)


def each_is_in_its_own(pid):
    for what, who, wanted in (("init", pid, "virtuserns-container (enforce)"),
                              ("the controller", controller_pid(), "virtuserns-controller (enforce)"),
                              ("the daemon", int(show("virtusernsd.service", "MainPID")), "virtusernsd (enforce)")):
        check(label(who) == wanted, f"{what} is confined", label(who))
    said = inside("/bin/busybox cat /proc/self/attr/apparmor/current")
    check(said.stdout.strip("\n\0") == "virtuserns-container (enforce)", "so is a command that comes later",
          said.stdout + said.stderr)


def clients_are_told(pid):
    check("virtuserns-container (enforcing)" in virsh("dominfo", "web").stdout, "dominfo shows the label",
          virsh("dominfo", "web").stdout)
    check("<label>virtuserns-container</label>" in virsh("dumpxml", "web").stdout, "so does the live XML",
          virsh("dumpxml", "web").stdout)
    check("seclabel" not in virsh("dumpxml", "web", "--inactive").stdout, "and not the definition",
          virsh("dumpxml", "web", "--inactive").stdout)
    check("<model>apparmor</model>" in virsh("capabilities").stdout, "capabilities name the model")
    check(label(pid).startswith("virtuserns-container"), "and it is true", label(pid))


def it_bites():
    """As container root where procfs would let it write, and in the way of a profile only."""
    said = inside("echo x > /proc/sys/kernel/core_pattern; echo x > /proc/sysrq-trigger; echo done")
    check("done" in said.stdout and "denied" in said.stderr.lower(), "it is refused", said.stdout + said.stderr)
    said = inside("echo 'changeprofile unconfined' > /proc/self/attr/apparmor/current; "
                  "/bin/busybox cat /proc/self/attr/apparmor/current")
    check("virtuserns-container" in said.stdout, "it cannot leave its profile", said.stdout + said.stderr)
    said = inside("/bin/busybox mount -t tmpfs none /tmp && /bin/busybox umount /tmp && echo mounted")
    check("mounted" in said.stdout, "what container root may do it still may", said.stdout + said.stderr)


def with_profiles():
    did("start it", "virsh", "-c", URI, "start", "web")
    pid = init_pid()
    each_is_in_its_own(pid)
    clients_are_told(pid)
    check(not denials(), "nothing was denied on the way", denials())
    it_bites()
    did("reset it", "virsh", "-c", URI, "reset", "web")
    check(eventually(lambda: init_pid() not in (None, pid)), "after a reset another init runs")
    check(eventually(lambda: label(init_pid()) == "virtuserns-container (enforce)"), "confined again", label(init_pid()))
    did("suspend it", "virsh", "-c", URI, "suspend", "web")
    did("resume it", "virsh", "-c", URI, "resume", "web")
    did("restart the daemon", "systemctl", "restart", "virtusernsd.service")
    check(eventually(lambda: "running" in virsh("domstate", "web").stdout), "the next daemon has it")
    did("shut it down", "virsh", "-c", URI, "shutdown", "web")
    check(eventually(lambda: "shut off" in virsh("domstate", "web").stdout), "it is off")


def with_an_image():
    """What reads an image is in a jail, and confined as the controller that runs it."""
    denied = denials()
    with open("/var/lib/web.img", "wb") as image:
        image.truncate(24 << 20)
    did("make an image", "mkfs.ext4", "-q", "-d", "/var/lib/web", "/var/lib/web.img")
    did("make it a qcow2", "qemu-img", "convert", "-O", "qcow2", "/var/lib/web.img", "/var/lib/web.qcow2")
    plain = virsh("dumpxml", "web", "--inactive").stdout
    for kind, driver, path in (("qcow2", "type='nbd' format='qcow2'", "/var/lib/web.qcow2"), ("raw", "type='loop'", "/var/lib/web.img")):
        root = f"<filesystem type='file'><driver {driver}/><source file='{path}'/><target dir='/'/></filesystem>"
        at, end = plain.index("<filesystem"), plain.index("</filesystem>") + len("</filesystem>")
        pathlib.Path("/run/web-image.xml").write_text(plain[:at] + root + plain[end:])
        did(f"define it with a {kind} image", "virsh", "-c", URI, "define", "/run/web-image.xml")
        did("start it from the image", "virsh", "-c", URI, "start", "web")
        servers = run("pgrep", "-f", "^/usr/bin/qemu-storage-daemon").stdout.split()
        check([label(pid) for pid in servers] == ["virtuserns-controller (enforce)"] * (kind == "qcow2"),
              "its storage daemon is confined", str([label(pid) for pid in servers]))
        check(label(init_pid()) == "virtuserns-container (enforce)", "and its init", label(init_pid()))
        did("destroy it with its image", "virsh", "-c", URI, "destroy", "web")
    check(denials() == denied, "nothing was denied to what reads images", denials())
    pathlib.Path("/run/web-plain.xml").write_text(plain)
    did("define it without an image", "virsh", "-c", URI, "define", "/run/web-plain.xml")


def with_an_overlay():
    """What the kernel does to layers it does by the label of whoever made the overlay, and at paths that begin at the layer: what
    that one may not do to the host's /etc, /usr and /boot, the container still may to its own."""
    denied = denials()
    plain = virsh("dumpxml", "web", "--inactive").stdout
    for place in ("usr", "boot"):
        pathlib.Path("/var/lib/web", place).mkdir(exist_ok=True)
        pathlib.Path("/var/lib/web", place, "old").write_text("old\n")
    pathlib.Path("/var/lib/web/etc/old").write_text("old\n")
    pathlib.Path("/var/lib/web-written").mkdir()
    overlay = ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:overlay target='/'>"
               "<userns:lower dir='/var/lib/web'/></userns:overlay></userns:domain></metadata>")
    pathlib.Path("/run/web-overlay.xml").write_text(plain.replace("</uuid>", "</uuid>" + overlay).replace(
        "<source dir='/var/lib/web'/>", "<source dir='/var/lib/web-written'/>"))
    did("define it with an overlay", "virsh", "-c", URI, "define", "/run/web-overlay.xml")
    did("start it from the overlay", "virsh", "-c", URI, "start", "web")
    check(label(init_pid()) == "virtuserns-container (enforce)", "its init is confined", label(init_pid()))
    for place in ("etc", "usr", "boot", "tmp"):
        said = inside(f"cd /{place} && echo new >new && /bin/busybox ln new link && /bin/busybox mv link moved && "
                      "/bin/busybox chmod 4755 new && /bin/busybox cat new moved && /bin/busybox mkdir d && "
                      "/bin/busybox cp /bin/busybox d/echo && d/echo runs")
        check(said.stdout == "new\nnew\nruns\n", f"it writes its own /{place}", said.stdout + said.stderr)
        if place == "tmp":
            continue
        said = inside(f"cd /{place} && echo more >>old && /bin/busybox cat old && /bin/busybox rm old && /bin/busybox mkdir old && echo gone")
        check(said.stdout == "old\nmore\ngone\n", f"it changes what is in /{place} of the base", said.stdout + said.stderr)
    check(denials() == denied, "nothing was denied to the overlay", denials())
    check(pathlib.Path("/var/lib/web/etc/old").read_text() == "old\n", "the base is as it was")
    did("destroy it with its overlay", "virsh", "-c", URI, "destroy", "web")
    pathlib.Path("/run/web-plain.xml").write_text(plain)
    did("define it without an overlay", "virsh", "-c", URI, "define", "/run/web-plain.xml")


def with_a_password():
    """The container's own /etc, where the controller's profile may write nothing."""
    denied = denials()
    shadow = pathlib.Path("/var/lib/web/etc/shadow")
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("root:*:19000:0:99999:7:::\n")
    did("start it", "virsh", "-c", URI, "start", "web")
    did("set a password", "virsh", "-c", URI, "set-user-password", "web", "root", "secret")
    check(shadow.read_text().startswith("root:$6$"), "it is set", shadow.read_text())
    check(denials() == denied, "nothing was denied to who set it", denials())
    did("destroy it", "virsh", "-c", URI, "destroy", "web")


def seclabel_is_heard():
    xml = virsh("dumpxml", "web", "--inactive").stdout
    for text, why in (("<seclabel type='none' model='apparmor'/>", "starts nothing unconfined"),
                      ("<seclabel type='static' model='apparmor' relabel='no'><label>no-such-profile</label></seclabel>",
                       "'no-such-profile' is not loaded")):
        pathlib.Path("/run/web-labelled.xml").write_text(xml.replace("</domain>", text + "</domain>"))
        did(f"define it with {text[:24]}", "virsh", "-c", URI, "define", "/run/web-labelled.xml")
        started = virsh("start", "web")
        check(started.returncode != 0 and why in started.stderr, f"and it {why}", started.stderr)
    pathlib.Path("/run/web-plain.xml").write_text(xml)
    did("define it as before", "virsh", "-c", URI, "define", "/run/web-plain.xml")


OF_A_USER = """
set -e
mkdir -p .run plain/bin plain/sbin plain/proc plain/sys plain/dev plain/tmp
cp /bin/busybox plain/bin/; for a in sh sleep; do ln -sf busybox plain/bin/$a; done
printf '#!/bin/sh\\nwhile :; do sleep 1; done\\n' >plain/sbin/init; chmod 755 plain/sbin/init
TOOL create --from plain root >/dev/null
cat >mine.xml <<END
<domain type='lxc'><name>mine</name><memory unit='MiB'>64</memory><os><type>exe</type><init>/sbin/init</init></os>
<devices><filesystem type='mount'><source dir='$PWD/root'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>
END
virsh -c userns:///session?mode=direct define mine.xml
virsh -c userns:///session start mine
virsh -c userns:///session domid mine
"""


def of_an_ordinary_user():
    """Whose controller calls newuidmap and executes itself again."""
    did("make a user", "useradd", "--create-home", "anna")
    tool = shutil.copy(SOURCE / "tools/virt-userns-rootfs", "/usr/local/bin/")
    script = OF_A_USER.replace("TOOL", tool)
    as_anna = ["runuser", "-u", "anna", "--", "env", "-C", "/home/anna", "HOME=/home/anna", "XDG_RUNTIME_DIR=/home/anna/.run"]
    said = run(*as_anna, "sh", "-c", script)
    if check(said.returncode == 0, "a domain of an ordinary user starts", said.stdout + said.stderr + denials()):
        controller = said.stdout.split()[-1]
        check(label(controller) == "virtuserns-controller (enforce)", "its controller is confined", label(controller))
        children = pathlib.Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        inits = [pid for pid in children if "stem" not in pathlib.Path(f"/proc/{pid}/comm").read_text()]
        check([label(pid) for pid in inits] == ["virtuserns-container (enforce)"], "and its init", str([label(pid) for pid in inits]))
    did("destroy it", *as_anna, "virsh", "-c", "userns:///session", "destroy", "mine")
    run("pkill", "-u", "anna", "virtusernsd")


def without_profiles():
    did("unload the profiles", "apparmor_parser", "-R", PROFILES)
    os.unlink(PROFILES)
    did("restart the daemon without", "systemctl", "restart", "virtusernsd.service")
    did("start it without", "virsh", "-c", URI, "start", "web")
    check(label(init_pid()) == "unconfined", "without profiles nothing is confined", label(init_pid()))
    check("Security label" not in virsh("dominfo", "web").stdout, "and nothing else is said", virsh("dominfo", "web").stdout)
    check("seclabel" not in virsh("dumpxml", "web").stdout, "neither in the XML")
    did("suspend it without", "virsh", "-c", URI, "suspend", "web")
    did("destroy it", "virsh", "-c", URI, "destroy", "web")


def main():
    install()
    make_domain_after_load()
    with_profiles()
    with_an_image()
    with_an_overlay()
    with_a_password()
    seclabel_is_heard()
    of_an_ordinary_user()
    without_profiles()
    return finish("apparmor")


def make_domain_after_load():
    did("load the profiles", "apparmor_parser", "-r", "-K", PROFILES)
    did("stop the daemon", "systemctl", "stop", "virtusernsd.service")
    start_service()
    make_domain()


if __name__ == "__main__":
    sys.exit(main())
