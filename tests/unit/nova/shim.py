#!/usr/bin/python3
"""Nova's driver (driver/compute/nova) with Nova's own classes, against an adapter that is scripted.

shim.py [--eventlet] [unittest's arguments]; with --eventlet as nova-compute of today runs it, else with native threads.
"""
import sys

try:
    if "--eventlet" in sys.argv:
        sys.argv.remove("--eventlet")
        import eventlet
        eventlet.monkey_patch()
    import nova.virt.driver  # noqa: F401
except ImportError as error:
    print(f"Nova is not installed (package python3-nova): {error}")
    sys.exit(77)
import unittest

CASES = ["client_cases", "device_cases", "document_cases", "driver_cases", "evacuated_cases", "event_cases", "host_cases", "image_cases",
         "lost_cases", "marshal_cases", "signature_cases", "signed_cases"]


def load_tests(loader, _standard, _pattern):
    return unittest.TestSuite(loader.loadTestsFromName(name) for name in CASES)


if __name__ == "__main__":
    unittest.main()
