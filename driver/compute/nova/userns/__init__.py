"""Nova's compute driver for user-namespace containers: compute_driver = userns.UsernsDriver.

A thin client of virtuserns-compute(8): it puts Nova's objects into the structures of docs/compute-api.md and asks. What an
instance is made of, and how, is decided there.
"""

from nova.virt.userns.driver import UsernsDriver

__all__ = ['UsernsDriver']
