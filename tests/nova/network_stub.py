#!/usr/bin/python3
"""network_stub.py PORT: the network service of a cloud whose instances have no network. Every collection is empty.

Nova asks it also for instances without a nic. It is no neutron, and nothing that is tested with it says anything of networks.
"""
import http.server
import json
import sys

COLLECTIONS = {"extensions", "networks", "ports", "subnets", "floatingips", "security-groups", "routers", "subnetpools",
               "security-group-rules"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):  # noqa: N802
        path = self.path.split("?")[0].rstrip("/").removesuffix(".json")
        last = path.rpartition("/")[2]
        if path == "":
            link = {"rel": "self", "href": f"http://{self.headers['Host']}/v2.0/"}
            self.answer(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})
        elif "quotas" in path:
            self.answer(200, {"quota": {name: -1 for name in ("network", "subnet", "port", "router", "floatingip",
                                                              "security_group", "security_group_rule")}})
        elif last in COLLECTIONS:
            self.answer(200, {last.replace("-", "_"): []})
        else:
            self.answer(404, {"NeutronError": {"type": "NotFound", "message": path, "detail": ""}})

    def do_POST(self):  # noqa: N802
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(404, {"NeutronError": {"type": "NotFound", "message": self.path, "detail": ""}})

    do_PUT = do_DELETE = do_POST  # noqa: N815


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
