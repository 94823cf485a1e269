//! Compiles the programs for the kernel.
//!
//! Any kernel with tcx knows the third version of its instructions. Of the kernel's own headers, `<asm/types.h>` lies in a folder named after the machine, where clang does not look when it
//! compiles for BPF.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCE: &str = "bpf/shortcut.c";

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");

    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let object = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("shortcut.o");
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN").expect("cargo sets CARGO_CFG_TARGET_ENDIAN");
    let mut command = Command::new(&clang);
    command.args(["-O2", "-g", "-Wall", "-Wextra", "-std=gnu11", "-mcpu=v3"]);
    command.arg(if endian == "big" { "--target=bpfeb" } else { "--target=bpfel" });
    command.args(headers().map(|folder| format!("-I{}", folder.display())));
    command.args(["-c", SOURCE, "-o"]).arg(&object);
    match command.output() {
        Ok(output) if output.status.success() => {
            for line in
                String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("warning:"))
            {
                println!("cargo::warning={line}");
            }
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!(
                "{SOURCE} was not compiled ({}): {}\n\
                 If a header is missing, install it: on Debian and Ubuntu `apt-get install libbpf-dev linux-libc-dev`.",
                output.status,
                said.lines().find(|line| line.contains("error")).unwrap_or_default()
            );
            fail(&what, &said)
        }
        Err(error) => {
            let what = format!(
                "{clang}: {error}; it is needed to compile {SOURCE} for the kernel.\n\
                 Install it: on Debian and Ubuntu `apt-get install clang libbpf-dev`.\n\
                 If it has another name, let CLANG say it."
            );
            fail(&what, "")
        }
    }
}

/// The folder of `<asm/types.h>`, where headers of several machines lie side by side.
fn headers() -> impl Iterator<Item = PathBuf> {
    let machine = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let folder = Path::new("/usr/include").join(format!("{machine}-linux-gnu"));
    folder.is_dir().then_some(folder).into_iter()
}

/// Ends the build: cargo shows `what`, and on request (`-vv`) the tool's own `details`.
fn fail(what: &str, details: &str) -> ! {
    for line in what.lines() {
        println!("cargo::error={line}");
    }
    eprintln!("{details}");
    // An error that was printed as such fails the build, without all other output of this script.
    exit(0)
}
