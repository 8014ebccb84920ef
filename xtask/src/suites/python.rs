//! Python's own tests of what has to do with files and processes: a module that passes on tmpfs passes in a mount.

use super::Context;
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::place::Place;
use crate::report::Suite;
use crate::run::{Done, side_by_side};
use crate::workspace;
use std::time::Duration;

const MODULES: &[&str] = &[
    "test_bz2",
    "test_cmd_line_script",
    "test_dbm",
    "test_fcntl",
    "test_file",
    "test_filecmp",
    "test_fileinput",
    "test_fileio",
    "test_genericpath",
    "test_glob",
    "test_gzip",
    "test_httpservers",
    "test_import",
    "test_importlib",
    "test_largefile",
    "test_mailbox",
    "test_mmap",
    "test_os",
    "test_pathlib",
    "test_posix",
    "test_shutil",
    "test_tarfile",
    "test_tempfile",
    "test_zipfile",
];

/// What takes longer: with `--long`.
const MORE_MODULES: &[&str] = &[
    "test_asyncio",
    "test_compileall",
    "test_concurrent_futures",
    "test_dbm_dumb",
    "test_eintr",
    "test_fork1",
    "test_io",
    "test_linecache",
    "test_logging",
    "test_lzma",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
    "test_openpty",
    "test_pkgutil",
    "test_poll",
    "test_popen",
    "test_posixpath",
    "test_pty",
    "test_runpy",
    "test_select",
    "test_selectors",
    "test_shelve",
    "test_signal",
    "test_stat",
    "test_subprocess",
    "test_threading",
    "test_tokenize",
    "test_unicode_file",
    "test_unicode_file_functions",
    "test_venv",
    "test_wait3",
    "test_wait4",
    "test_zipimport",
];

pub(crate) fn python(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("python");
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mount = if context.native_only {
        None
    } else {
        Some(Mount::new(context.profile, None, "4GiB", THREE_COPIES)?)
    };
    let mut modules = MODULES.to_vec();
    if context.long {
        modules.extend(MORE_MODULES);
    }
    let results = side_by_side(&modules, |module| {
        let one = |place| one(place, module).map_err(|error| error.to_string());
        let here = mount.as_ref().map(|mount| one(&mount.place)).transpose()?;
        Ok::<_, String>((one(&native)?, here))
    });
    for (module, result) in modules.iter().zip(results) {
        let (there, here) = result?;
        if !there.ok() {
            if context.long {
                suite.skipped += 1;
            } else {
                let why = format!("natively: {}: {}", there.ending(), there.tail(20));
                suite.check(module, Err(why));
            }
            continue;
        }
        let judged = match here {
            Some(here) if !here.ok() => Err(format!("{}: {}", here.ending(), here.tail(40))),
            _ => Ok(()),
        };
        suite.check(module, judged);
    }
    Ok(suite)
}

/// Runs the tests of a module, which work in a directory of the place.
fn one(place: &Place, module: &str) -> Result<Done, Failure> {
    let log = format!("python-{}-{module}", place.label);
    let dir = place.make_dir(module, &log)?;
    place
        .step("env")
        .arg(format!("TMPDIR={}", dir.display()))
        .args(["/usr/bin/python3", "-m", "test", "--timeout", "240"])
        .arg("--tempdir")
        .arg(&dir)
        .arg(module)
        .timeout(Duration::from_secs(600))
        .log(&log)
        .run()
}
