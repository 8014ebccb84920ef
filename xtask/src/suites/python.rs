//! Python's own tests of what has to do with files and processes: a module that passes on tmpfs passes in a mount.

use super::Context;
use crate::Failure;
use crate::place::Place;
use crate::report::{Ending, Suite};
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
    let more = if context.long { MORE_MODULES } else { &[] };
    let modules: Vec<(String, ())> = MODULES
        .iter()
        .chain(more)
        .map(|module| ((*module).to_owned(), ()))
        .collect();
    context.compare("python", &modules, |place, module, ()| one(place, module))
}

/// Runs the tests of a module, which work in a directory of the place.
fn one(place: &Place, module: &str) -> Result<Ending, Failure> {
    let log = format!("python-{}-{module}", place.label);
    let dir = place.make_dir(module, &log)?;
    let done = place
        .step("env")
        .arg(format!("TMPDIR={}", dir.display()))
        .args(["/usr/bin/python3", "-m", "test", "--timeout", "240"])
        .arg("--tempdir")
        .arg(&dir)
        .arg(module)
        .timeout(Duration::from_secs(600))
        .log(&log)
        .run()?;
    Ok(Ending::of(&done, done.ok(), 40))
}
