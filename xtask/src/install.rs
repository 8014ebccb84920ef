//! `cargo xtask install`: libraries to PREFIX/lib64, programs and scripts to PREFIX/bin, where DAOS's own packages and
//! site documentation expect them.

use crate::Failure;
use crate::workspace::{self, Profile};
use std::path::Path;

/// Libraries, as far as this version builds them.
const LIBRARIES: &[&str] = &["libpil4dfs.so", "libpil4dfs_symbols.so", "libioil.so"];
/// Programs, as far as this version builds them.
const PROGRAMS: &[&str] = &["daos", "dmg", "dfuse"];

/// Builds and installs.
pub(crate) fn install(prefix: &Path) -> Result<bool, Failure> {
    Profile::Release.build()?;
    let release = Profile::Release.dir();
    let (lib, bin) = (prefix.join("lib64"), prefix.join("bin"));
    for dir in [&lib, &bin] {
        std::fs::create_dir_all(dir)
            .map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
    }
    for (names, to) in [(LIBRARIES, &lib), (PROGRAMS, &bin)] {
        for name in names.iter().filter(|name| release.join(name).is_file()) {
            put(&release.join(name), &to.join(name))?;
        }
    }
    let scripts = workspace::root().join("scripts");
    if scripts.is_dir() {
        for entry in std::fs::read_dir(&scripts)? {
            let path = entry?.path();
            if path.is_file() {
                put(&path, &bin.join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    Ok(true)
}

/// Replaces a file in one step: programs that run with the old one keep it.
fn put(from: &Path, to: &Path) -> Result<(), Failure> {
    let new = to.with_extension(format!("new-{}", std::process::id()));
    std::fs::copy(from, &new).map_err(|e| format!("cannot write {}: {e}", new.display()))?;
    workspace::set_mode(&new, 0o755)?;
    std::fs::rename(&new, to).map_err(|e| format!("cannot replace {}: {e}", to.display()))?;
    println!("{}", to.display());
    Ok(())
}
