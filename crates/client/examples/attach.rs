//! How long a process that has just started takes to see a file of a container for the first time:
//! `attach ROOT POOL CONTAINER` prints `attach MICROSECONDS`, for `cargo xtask bench`.

use client::Backend;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

fn main() {
    let args: Vec<Vec<u8>> = std::env::args_os()
        .skip(1)
        .map(OsStringExt::into_vec)
        .collect();
    let [root, pool, container] = args.as_slice() else {
        eprintln!("usage: attach ROOT POOL CONTAINER");
        std::process::exit(1);
    };
    let start = Instant::now();
    let backend = match Backend::open(Some(root), pool, container) {
        Ok(backend) => backend,
        Err(error) => {
            eprintln!("attach: {error}");
            std::process::exit(1);
        }
    };
    let fs = backend.fs();
    let stat = fs.stat(fs.root());
    let spent = start.elapsed();
    assert!(stat.is_ok(), "the root can be looked at");
    println!("attach {:.1}", spent.as_nanos() as f64 / 1e3);
}
