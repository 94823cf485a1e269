//! The machine Culvert runs on: PCI, sysfs, netlink, drivers, network namespaces.
