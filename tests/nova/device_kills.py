#!/usr/bin/python3
"""kill -9 of nova-compute, of virtuserns-compute or of virtusernsd while a volume or a link is plugged in or out, on path B.

    VIRTUSERNS_SEED=1 tests/nova/device_kills.py --build build-check/gcc [-k 'volume|nova-compute'] [--short]

Each is tried undisturbed, and then with a kill at a moment of the time that it took. Then: the instance itself and another one have run
on, the same can be asked for again and does what it should, as does its opposite, and when instance and device are deleted nothing of
them is left. A request that was lost with nova-compute (Nova acknowledges it before it works on it) leaves a volume `attaching` or
`detaching` in Cinder, and is asked for again when nova-compute is back; a port that is half bound in Neutron is unplugged by its owner. Where
that is not enough, what an operator then does (`openstack volume set --state`, `openstack port unset --device`) is done here; the line of the
trial says so.
"""
import contextlib
import threading
import time

import suite
import cinder_service
import daemon as daemon_module
import kill_trials
import libvirt
import neutron
import settings
from kill_trials import TRIES, Trials
from matrix import BY_HAND
from network_stage import HOST, NetworkStage, address_of, link_of, tap_of, traces
from rest import Refused, Session, WentWrong, await_that
from stage import Mismatch, check, equal
from volume_stage import VolumeServer, VolumeStage

# Who asks for a device waits for nova-compute's answer. It looks at what Neutron has of its instances once a minute.
ANSWER_S = int(10 * daemon_module.TIME_FACTOR)
LOOK_AGAIN = "[DEFAULT]\nheal_instance_info_cache_interval = 5\n"
ABSENT = (Refused, WentWrong, Mismatch, libvirt.libvirtError)


class DeviceStage(VolumeStage, NetworkStage):
    server = VolumeServer


class Plug:
    """A device that a server has or has not. `request` asks Nova for either; `is_so` says whether it is so for everybody: Nova, who the
    device is of, and inside; `state` is what changes as long as something is under way."""

    def __init__(self, stage: DeviceStage, server: VolumeServer):
        self.stage, self.server = stage, server

    def request(self, plugged: bool) -> None:
        raise NotImplementedError

    def is_so(self, plugged: bool) -> bool:
        try:
            return self._look(plugged)
        except ABSENT:
            return False

    def _look(self, plugged: bool) -> bool:
        raise NotImplementedError

    def state(self) -> tuple:
        raise NotImplementedError

    def is_known(self, plugged: bool) -> bool:
        """As is_so, to the device's own service alone, which hears of it last: it tells when an action ends, and is quick to answer."""
        raise NotImplementedError

    def put_right(self) -> None:
        """By an operator: unplugged, as far as Nova and the device's own service are concerned."""
        raise NotImplementedError

    def end(self) -> list[str]:
        """The device is deleted, which the server is already. What is left of it."""
        raise NotImplementedError


class VolumePlug(Plug):
    def __init__(self, stage: DeviceStage, server: VolumeServer):
        super().__init__(stage, server)
        self.volume = stage.volume()

    def _attachment(self) -> dict | None:
        """As Nova has it."""
        return next((each for each in self.server.nova.volumes_of(self.server.id) if each["volumeId"] == self.volume.id), None)

    def request(self, plugged: bool) -> None:
        if plugged:
            self.server.nova.ask_for_volume(self.server.id, self.volume.id)
        else:
            self.server.nova.detach_volume(self.server.id, self.volume.id)

    def _look(self, plugged: bool) -> bool:
        status, attachment = self.volume.show()["status"], self._attachment()
        if not plugged:
            nodes = self.server.run("/bin/sh", "-c", "ls /dev")
            return status == "available" and attachment is None and "sdb" not in nodes and not self.stage.devices_of(self.volume)
        if status != "in-use" or attachment is None:
            return False
        word = f"{self.stage.doing}-{self.stage.next_number()}"
        self.server.write_to(attachment["device"], word)
        return self.volume.text() == word

    def state(self) -> tuple:
        found, attachment = self.volume.show(), self._attachment()
        return found["status"], len(found["attachments"]), attachment and attachment["device"]

    def is_known(self, plugged: bool) -> bool:
        return self.volume.show()["status"] == ("in-use" if plugged else "available")

    def put_right(self) -> None:
        known = self.stage.admin.cinder("GET", f"/attachments?volume_id={self.volume.id}")["attachments"]
        if self._attachment():
            if not known:  # nova-compute died after it had told Cinder; without one Cinder does not let it be in use
                self.stage.admin.cinder("POST", "/attachments", {"attachment": {"volume_uuid": self.volume.id,
                                                                               "instance_uuid": self.server.id}})
            self._reset("in-use", "attached")
            self.request(False)
            return
        for each in known:
            self.stage.admin.cinder("DELETE", f"/attachments/{each['id']}")
        self._reset("available", "detached")

    def _reset(self, status: str, attach_status: str) -> None:
        self.volume.cinder.act(self.volume.id, "os-reset_status", {"status": status, "attach_status": attach_status})

    def end(self) -> list[str]:
        self.stage.give_up(self.volume)
        left = [f"volume {each['name']} is {each['status']}" for each in self.stage.volumes.list(all_projects=True)]
        left += [f"file {path.name}" for path in cinder_service.FOLDER.glob("*/*")]
        return left + [f"device over {file}" for file in self.stage.backing_files() if file.startswith(f"{cinder_service.FOLDER}/")]


class LinkPlug(Plug):
    """Of a port that was made before. One that an attach has left to be found by Nova itself is deleted by a detach, as Nova's own are."""

    def __init__(self, stage: DeviceStage, server: VolumeServer):
        super().__init__(stage, server)
        self.port = stage.make_port(stage.blue)

    def _found(self) -> dict | None:
        try:
            return self.stage.port(self.port["id"])
        except Refused as refused:
            if refused.code != 404:
                raise
            return None

    def request(self, plugged: bool) -> None:
        if plugged and not self._found():
            self.port = self.stage.make_port(self.stage.blue)
        (self.stage.attach if plugged else self.stage.detach)(self.server, self.port)

    def _interfaces(self) -> list[str]:
        """As Nova has them."""
        found = self.stage.admin.nova("GET", f"/servers/{self.server.id}/os-interface")["interfaceAttachments"]
        return [each["port_id"] for each in found]

    def _look(self, plugged: bool) -> bool:
        link, port = link_of(self.server, self.port), self._found()
        if not plugged:
            return link is None and not traces(self.port) and not (port and port["device_id"])
        return link is not None and port is not None and port["status"] == "ACTIVE" and port["device_id"] == self.server.id and \
            f"inet {address_of(self.port)}/" in self.server.run("/bin/ip", "addr", "show", "dev", link)

    def state(self) -> tuple:
        port = self._found() or {"status": "deleted", "device_id": ""}
        return port["status"], port["device_id"], self.port["id"] in self._interfaces(), tap_of(self.port).exists()

    def is_known(self, plugged: bool) -> bool:
        port = self._found() or {"status": "deleted", "device_id": ""}
        return port["status"] == "ACTIVE" if plugged else not port["device_id"]

    def put_right(self) -> None:
        with contextlib.suppress(Refused):
            self.request(False)
            self.stage.eventually_empty(lambda: traces(self.port))
        if (port := self._found()) and port["device_id"]:
            self.stage.update_port(port["id"], device_id="", device_owner="", **{"binding:host_id": ""})

    def end(self) -> list[str]:
        self.stage.forget_port(self.port)
        return self.stage.eventually_empty(lambda: traces(self.port))


PLUGS = {"volume": VolumePlug, "interface": LinkPlug}


class DeviceKills(Trials):
    names = ("attach-volume", "detach-volume", "attach-interface", "detach-interface")

    def act(self, name: str, victim: str) -> str:
        verb, kind = name.split("-")
        plugged = verb == "attach"
        if name not in self.seconds:
            self.seconds[name] = self._undisturbed(PLUGS[kind], plugged)
        server, plug = self._prepared(PLUGS[kind], plugged)
        init = server.init()
        asking = self._ask(plug, plugged)
        moment = self.kill_during(name, server.host, victim)
        asking.join()
        self.still(lambda: (*plug.state(), plug.is_so(plugged)), lambda now: now[-1])
        self.await_hosts()
        said = "done" if plug.is_so(plugged) else "not done"
        for wanted in (plugged, not plugged, plugged):
            said += self._make_so(plug, wanted)
        equal(server.init(), init, "its init")
        self.delete(server)
        self._end(plug)
        return f"at {moment:.2f} s: {said}"

    def clear(self) -> None:
        super().clear()
        for volume in self.stage.volumes.list(all_projects=True):
            with contextlib.suppress(Refused):
                self.stage.volumes.delete(volume["id"])

    # ---- its parts ----

    def _prepared(self, kind: type[Plug], plugged: bool) -> tuple[VolumeServer, Plug]:
        """Where the action begins."""
        server = self.stage.boot(host=HOST)
        plug = kind(self.stage, server)
        if not plugged:
            self._make_so(plug, True)
        return server, plug

    def _undisturbed(self, kind: type[Plug], plugged: bool) -> float:
        server, plug = self._prepared(kind, plugged)
        begin = time.monotonic()
        plug.request(plugged)
        await_that(lambda: plug.is_known(plugged), plug.state, 60)
        seconds = time.monotonic() - begin
        self._make_so(plug, plugged)
        self.delete(server)
        self._end(plug)
        return seconds

    @staticmethod
    def _ask(plug: Plug, plugged: bool) -> threading.Thread:
        """Nova's answer comes when it is done, or not at all."""
        def ask():
            with contextlib.suppress(Refused, OSError):
                plug.request(plugged)
        asking = threading.Thread(target=ask)
        asking.start()
        return asking

    def _make_so(self, plug: Plug, plugged: bool) -> str:
        """Asked for until it is so, also by who unplugs first what is half plugged in; where that is not enough, put right by hand. What
        had to be done."""
        notes, refusal = "", ""
        for attempt in range(TRIES):
            if plug.is_so(plugged):
                return notes
            if attempt == 2 and plugged:
                notes = ", unplugged first"
                with contextlib.suppress(Refused):
                    plug.request(False)
                self.still(lambda: (*plug.state(), plug.is_so(False)), lambda now: now[-1])
            elif attempt > 1:
                notes = f", {BY_HAND}"
                with contextlib.suppress(Refused):
                    plug.put_right()
                self.still(lambda: (*plug.state(), plug.is_so(False)), lambda now: now[-1])
            try:
                plug.request(plugged)
            except Refused as refused:
                refusal = str(refused)
            self.still(lambda: (*plug.state(), plug.is_so(plugged)), lambda now: now[-1])
        check(plug.is_so(plugged), f"it is {'plugged in' if plugged else 'unplugged'} after {TRIES} tries: {plug.state()}, {refusal}, "
                                   f"{plug.server.reason()}")
        return notes

    @staticmethod
    def _end(plug: Plug) -> None:
        left = plug.end()
        check(not left, "left: " + "; ".join(left[:20]))


class Neutron(neutron.Neutron):
    @staticmethod
    def write_settings() -> None:
        neutron.Neutron.write_settings()
        with open(settings.CONFIG / "nova/nova.conf", "a") as file:
            file.write(f"\n[DEFAULT]\nrpc_response_timeout = {ANSWER_S}\n")


def start_hosts(cloud):
    kill_trials.start_host(cloud, HOST, LOOK_AGAIN)
    cloud.network.start_agent(cloud.start_program, Session.admin(), "neutron-linuxbridge-agent", HOST, neutron.LINUXBRIDGE)


if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, {}), subject=suite.Subject(
        stage=DeviceStage, volumes=cinder_service.Cinder(), network=Neutron(), run=kill_trials.runner(DeviceKills)))
