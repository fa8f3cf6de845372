"""Programs of others that people use with libvirt: virt-install, virt-xml, virt-clone."""
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET

from harness import OURS, Skip, contains, equal, main, test


def run(env, *argv):
    if not shutil.which(argv[0]):
        raise Skip(f"{argv[0]} is not installed")
    result = subprocess.run(argv, capture_output=True, text=True, timeout=120,
                            env={**os.environ, "LC_ALL": "C", "HOME": env.folder, "XDG_CACHE_HOME": env.folder})
    equal(result.returncode, 0, f"{' '.join(argv)}: {result.stdout} {result.stderr}")
    return result.stdout


def install(env, name):
    root = env.root_tree() if env.driver == "userns" else "/"
    return run(env, "virt-install", "--connect", env.uri, "--name", name, "--memory", "128", "--vcpus", "1",
               "--init", "/sbin/init", "--filesystem", f"{root},/", "--network", "none", "--noautoconsole", "--container")


@test(OURS)
def virt_install(env):
    install(env, "made")
    equal(env.state("made")[0], "running")
    root = ET.fromstring(env.virsh("dumpxml", "made").ok().out)
    equal((root.get("type"), root.find("memory").text, root.find("os/init").text), ("lxc", "131072", "/sbin/init"))


@test(OURS)
def virt_xml(env):
    env.define("web", memory_kib=131072)
    run(env, "virt-xml", "--connect", env.uri, "web", "--edit", "--memory", "memory=64,currentMemory=64")
    equal(ET.fromstring(env.virsh("dumpxml", "web").ok().out).find("memory").text, "65536")
    run(env, "virt-xml", "--connect", env.uri, "web", "--edit", "--metadata", "title=Edited")
    equal(env.virsh("desc", "web", "--title").ok().out.strip(), "Edited")


@test(OURS)
def virt_clone(env):
    env.define("web")
    run(env, "virt-clone", "--connect", env.uri, "--original", "web", "--name", "copy", "--auto-clone")
    contains(env.virsh("list", "--all", "--name").ok().out, "copy")
    equal(env.uuid("copy") == env.uuid("web"), False)


@test(OURS)
def virsh_edit(env):
    env.define("web", memory_kib=131072)
    argv = ["virsh", "-c", env.uri, "edit", "web"]
    environment = {name: value for name, value in os.environ.items() if name != "VISUAL"}
    environment |= {"EDITOR": "sed -i s/131072/98304/", "LC_ALL": "C"}
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
    equal(result.returncode, 0, result.stdout + result.stderr)
    equal(env.virsh("dominfo", "web").ok().fields()["Max memory"], "98304 KiB")


main()
