//! Finds libdpdk by pkg-config, generates the bindings and compiles the shim.
//!
//! The compiler flags are taken from pkg-config as they are (the `pkg-config` crate drops `-include` and `-march`, and
//! DPDK's headers do not compile without them); the libraries are those pkg-config names, linked shared: EAL loads the
//! drivers from its own folder at run time.

use std::env;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Command, exit};

/// The oldest release whose names the shim uses.
const OLDEST: &str = "22.11";

/// The exported functions that the wrapper calls. Inline ones and those over changing structs go through the shim.
const FUNCTIONS: &[&str] = &[
    "rte_eal_cleanup",
    "rte_eal_hotplug_add",
    "rte_eal_hotplug_remove",
    "rte_eal_init",
    "rte_eth_dev_close",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_rx_intr_ctl_q_get_fd",
    "rte_eth_dev_rx_intr_disable",
    "rte_eth_dev_rx_intr_enable",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    "rte_eth_stats_reset",
    "rte_get_tsc_hz",
    "rte_hash_add_key_data",
    "rte_hash_free",
    "rte_hash_lookup_bulk_data",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_pktmbuf_pool_create",
    "rte_socket_id",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
    "shim_.*",
];

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");

    let library =
        pkg_config::Config::new().atleast_version(OLDEST).probe("libdpdk").unwrap_or_else(|error| {
            let what = format!(
                "DPDK {OLDEST} or newer was not found by pkg-config.\n\
                 Install its development files: on Debian and Ubuntu `apt-get install libdpdk-dev pkg-config`.\n\
                 If DPDK is installed elsewhere, let PKG_CONFIG_PATH name the folder that holds libdpdk.pc."
            );
            fail(&what, error)
        });
    if let Err(error) = clang_sys::load() {
        let what = "libclang was not found; it is needed to read DPDK's headers.\n\
                    Install it: on Debian and Ubuntu `apt-get install libclang-dev`.\n\
                    If it is installed elsewhere, let LIBCLANG_PATH name its folder.";
        fail(what, error);
    }
    let flags = compiler_flags();
    bindings(&flags);
    shim(&flags);
    println!("cargo::metadata=version={}", library.version);
}

/// Ends the build: cargo shows `what`, and on request (`-vv`) the tool's own `details`.
fn fail(what: &str, details: impl Display) -> ! {
    for line in what.lines() {
        println!("cargo::error={line}");
    }
    eprintln!("{details}");
    // An error that was printed as such fails the build, without all other output of this script.
    exit(0)
}

fn compiler_flags() -> Vec<String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = match Command::new(&program).args(["--cflags", "libdpdk"]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let what = format!("{program} --cflags libdpdk: {}", output.status);
            fail(&what, String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => fail(&format!("{program} --cflags libdpdk: {error}"), ""),
    };
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn bindings(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header_contents(
            "bindings.h",
            "#include <rte_eal.h>\n\
             #include <rte_cycles.h>\n\
             #include <rte_dev.h>\n\
             #include <rte_errno.h>\n\
             #include <rte_ethdev.h>\n\
             #include <rte_hash.h>\n\
             #include <rte_lcore.h>\n\
             #include <rte_mbuf.h>\n\
             #include <rte_mempool.h>\n\
             #include <rte_version.h>\n\
             #include \"shim.h\"\n",
        )
        .clang_arg(format!("-I{}", PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("shim").display()))
        .clang_args(flags)
        .allowlist_type("shim_.*")
        .allowlist_var("SHIM_.*")
        // No struct of DPDK's own: lib.rs defines those that are pointed to.
        .allowlist_recursively(false)
        .derive_debug(false)
        .layout_tests(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    let bindings = builder.generate().unwrap_or_else(|error| {
        let what = format!(
            "bindgen could not read DPDK's headers: {}\n\
             If a header such as stddef.h is missing, install clang's own: `apt-get install libclang-dev`.",
            error.to_string().lines().next().unwrap_or_default()
        );
        fail(&what, error)
    });
    if let Err(error) = bindings.write_to_file(&out) {
        fail(&format!("{}: {error}", out.display()), "");
    }
}

fn shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("shim/shim.c").include("shim").opt_level(3).std("gnu11").warnings(true);
    for flag in flags {
        build.flag(flag);
    }
    build.compile("culvert_dpdk_shim");
}
