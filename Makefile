# Thin over ci/: what CI runs and what a developer runs are the same commands.
.DEFAULT_GOAL := help
.PHONY: help setup build check test bench bench-micro demo demo-fastpath demo-sriov audit fmt clean-testbed

help:           ## show this list
	@sed -n 's/^\([a-z-]*\): *## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup:          ## install what is needed from Debian, reserve hugepages (part of the others)
	@ci/setup

build:          ## compile everything
	@ci/build

check:          ## formatting, lints, dependency law, where unsafe may be
	@ci/check

test:           ## check, then unit, property, netns and emulated NIC tests
	@ci/test

bench:          ## measure the control plane, the forwarding engine and the pods' path; fails when a goal is missed
	@ci/bench

bench-micro:    ## measure single functions of the data path, without root or hardware
	@ci/bench micro

demo:           ## show both halves at work, end to end
	@ci/demo fastpath sriov

demo-fastpath:  ## show the DPDK fast path: overlay to a kernel VXLAN node, Services
	@ci/demo fastpath

demo-sriov:     ## show SR-IOV in a guest with an emulated NIC: plan, apply, kubelet, CNI
	@ci/demo sriov

audit:          ## licences, bans and sources of all dependencies
	@ci/audit

fmt:            ## format the code
	@cargo fmt --all

clean-testbed:  ## remove namespaces and processes that an interrupted test left behind
	@ci/clean-testbed
