//! The Debian packages the suites need.

use crate::Failure;
use crate::run::{Step, on_path};
use crate::workspace::is_root;
use std::path::Path;
use std::time::Duration;

/// A program or file that proves the package is there, and the package's name.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("make", "make"),
    ("git", "git"),
    ("rsync", "rsync"),
    ("sqlite3", "sqlite3"),
    ("perl", "perl"),
    ("/usr/bin/python3", "python3"),
    (
        "/usr/lib/python3.11/test/test_os.py",
        "libpython3.11-testsuite",
    ),
    ("node", "nodejs"),
    ("busybox", "busybox"),
    ("mpicc.mpich", "libmpich-dev"),
    ("mpiexec.mpich", "mpich"),
    ("mpicc.openmpi", "libopenmpi-dev"),
    ("mpiexec.openmpi", "openmpi-bin"),
    ("/usr/include/sys/acl.h", "libacl1-dev"),
    ("strace", "strace"),
    ("file", "file"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("setfattr", "attr"),
    ("getfacl", "acl"),
    ("bc", "bc"),
    ("fio", "fio"),
    ("patch", "patch"),
    ("xz", "xz-utils"),
    ("zip", "zip"),
    ("unzip", "unzip"),
];

fn missing() -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(proof, _)| {
            if proof.starts_with('/') {
                !Path::new(proof).exists()
            } else {
                !on_path(proof)
            }
        })
        .map(|(_, package)| *package)
        .collect()
}

/// Installs what is missing when root, else names it.
pub(crate) fn ensure() -> Result<(), Failure> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() || !on_path("apt-get") {
        return Err(format!("install these packages first: {}", packages.join(" ")).into());
    }
    println!("installing {}", packages.join(" "));
    let apt = |args: &[&str]| {
        Step::new("apt-get")
            .args(args.iter().copied())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .timeout(Duration::from_secs(600))
            .log("packages")
            .run()
    };
    apt(&["update", "-q"])?;
    let mut args = vec!["install", "-q", "-y", "--no-install-recommends"];
    args.extend(&packages);
    let done = apt(&args)?;
    let left = missing();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("could not install {}: {}", left.join(" "), done.tail(5)).into())
    }
}
