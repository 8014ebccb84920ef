//! `daos fs`: looking at and changing the files of a container without mounting it.

use crate::copy::{CopyArgs, copied, copy, cure};
use crate::fs_check::{FsCheckArgs, fs_check};
use crate::names::{ContArgs, ContNames};
use crate::output::{Failure, Reply, Tool};
use crate::session::open_container;
use crate::table::base64;
use crate::transfer::{Mode, get, put};
use crate::view::{Entry, S_IFDIR, S_IFMT, View};
use clap::{Args, Subcommand};
use daos_types::format_utc;
use dfs::{Ino, Stat};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use sys::Errno;

/// Commands on files.
#[derive(Subcommand, Debug)]
pub(crate) enum FsCommand {
    /// list a directory: POOL CONT [PATH]
    Ls(LsArgs),
    /// print a file: POOL CONT PATH
    Cat(ContArgs),
    /// remove a file or, with -r, a tree: POOL CONT PATH
    Rm(RmArgs),
    /// make a directory: POOL CONT PATH
    Mkdir(MkdirArgs),
    /// copy a file or tree into the container: POOL CONT LOCAL PATH
    Put(ContArgs),
    /// copy a file or tree out of the container: POOL CONT PATH LOCAL
    Get(ContArgs),
    /// copy between a local path and daos://pool/container/path
    Copy(CopyArgs),
    /// check the files of a container and, if asked, repair them: POOL CONT
    Check(FsCheckArgs),
}

/// Arguments of `fs ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Show mode, links, owner, size and time
    #[arg(short = 'l', long = "long")]
    long: bool,
}

/// Arguments of `fs rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Remove directories and what is in them
    #[arg(short = 'r', long)]
    recursive: bool,
}

/// Arguments of `fs mkdir`.
#[derive(Args, Debug)]
pub(crate) struct MkdirArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Make missing parents; no error if the directory exists
    #[arg(short = 'p', long)]
    parents: bool,
    /// Permissions, octal
    #[arg(short = 'm', long)]
    mode: Option<String>,
}

/// A container's namespace and the arguments behind its name.
struct At {
    view: View,
    paths: Vec<OsString>,
}

fn open(names: ContNames, outer: &str) -> Result<At, Failure> {
    let paths = names.rest.clone();
    let mut opened = open_container(names, outer)?.hold(outer)?;
    Ok(At {
        view: opened.view(outer)?,
        paths,
    })
}

/// `failed: PATH: errno N (text)`, with the cure where there is one.
fn failed(what: &str, path: &OsStr, errno: Errno) -> Failure {
    let shown = name_text(path.as_bytes());
    let failure = Failure::errno(format!("{what} {shown} failed"), errno);
    match errno {
        Errno::ENOENT => failure.because("see: daos fs ls POOL CONT"),
        Errno::EISDIR if what == "rm" => failure.because("use rm -r for a directory"),
        Errno::ENOSPC => failure.because("the pool is full; remove files or use a larger pool"),
        _ => failure,
    }
}

fn type_name(mode: u32) -> &'static str {
    match mode & S_IFMT {
        0o040_000 => "directory",
        0o100_000 => "file",
        0o120_000 => "symlink",
        0o010_000 => "fifo",
        0o140_000 => "socket",
        0o020_000 => "character device",
        0o060_000 => "block device",
        _ => "unknown",
    }
}

/// `drwxr-xr-x`, as `ls(1)` writes it.
fn mode_text(mode: u32) -> String {
    let kind = match type_name(mode) {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "character device" => 'c',
        "block device" => 'b',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[derive(Serialize)]
struct EntryJson {
    name: String,
    /// The bytes of a name that is not UTF-8, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    r#type: &'static str,
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// A name on one line of text, odd bytes as `\xNN`.
pub(crate) fn name_text(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn long_line(stat: &Stat, name: &str, target: Option<&str>) -> String {
    let arrow = target.map_or_else(String::new, |target| format!(" -> {target}"));
    let time = format_utc(stat.mtime.into());
    let time: String = time.chars().take(19).collect();
    format!(
        "{} {:>3} {:>5} {:>5} {:>12} {time} {name}{arrow}\n",
        mode_text(stat.mode),
        stat.nlink,
        stat.uid,
        stat.gid,
        stat.size
    )
}

fn ls(tool: Tool, args: LsArgs) -> Result<Reply, Failure> {
    let At { view, paths } = open(args.cont.split(0, 1)?, "")?;
    let path = paths.first().map_or(OsStr::new("/"), OsString::as_os_str);
    let fail = |errno| failed("ls", path, errno);
    let ino = view.find(path.as_bytes(), true).map_err(fail)?;
    let stat = view.stat(ino).map_err(fail)?;
    let entries = if stat.mode & S_IFMT == S_IFDIR {
        view.list(ino).map_err(fail)?
    } else {
        vec![Entry {
            name: path.as_bytes().to_vec(),
            ino,
            stat,
        }]
    };
    let mut text = String::new();
    let mut json = Vec::new();
    for Entry { name, ino, stat } in entries {
        let shown = name_text(&name);
        let target = match view.readlink(ino) {
            Ok(target) => Some(name_text(&target)),
            Err(_) => None,
        };
        if args.long {
            text.push_str(&long_line(&stat, &shown, target.as_deref()));
        } else {
            text.push_str(&format!("{shown}\n"));
        }
        json.push(EntryJson {
            name_base64: std::str::from_utf8(&name).is_err().then(|| base64(&name)),
            name: String::from_utf8_lossy(&name).into_owned(),
            r#type: type_name(stat.mode),
            mode: format!("{:04o}", stat.mode & 0o7777),
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            mtime_ns: stat.mtime,
            target,
        });
    }
    tool.reply(text, &json)
}

fn cat(tool: Tool, cont: ContArgs) -> Result<Reply, Failure> {
    let At { view, paths } = open(cont.split(1, 1)?, "")?;
    let path = paths.first().map_or(OsStr::new(""), OsString::as_os_str);
    let fail = |errno| failed("cat", path, errno);
    let ino = view.find(path.as_bytes(), true).map_err(fail)?;
    if view.stat(ino).map_err(fail)?.mode & S_IFMT == S_IFDIR {
        return Err(fail(Errno::EISDIR));
    }
    let file = view.open(ino).map_err(fail)?;
    let mut buffer = vec![0; 1 << 20];
    let mut out = std::io::stdout().lock();
    let mut pos = 0;
    loop {
        let count = file.read_at(&mut buffer, pos).map_err(fail)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
            // Whoever read the pipe has had enough, as with cat(1).
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                break;
            }
            return Err(Failure::plain(format!(
                "cat {} failed: writing output: {error}",
                name_text(path.as_bytes())
            )));
        }
        pos += count as u64;
    }
    // Files are not JSON: their bytes are the answer.
    Tool {
        json: false,
        ..tool
    }
    .done("")
}

/// Removes a directory's contents, deepest first, without recursion.
fn remove_contents(view: &View, dir: Ino) -> Result<(), Errno> {
    // A directory whose entries are being removed, and how its parent names it.
    let mut open = vec![(dir, None::<(Ino, Vec<u8>)>)];
    while let Some((at, named)) = open.pop() {
        let mut below = Vec::new();
        for entry in view.list(at)? {
            if entry.stat.mode & S_IFMT == S_IFDIR {
                below.push((entry.ino, Some((at, entry.name))));
            } else {
                gone(view.unlink(at, &entry.name))?;
            }
        }
        if below.is_empty() {
            if let Some((parent, name)) = named {
                gone(view.rmdir(parent, &name))?;
            }
        } else {
            // Looked at again once everything below has gone.
            open.push((at, named));
            open.extend(below);
        }
    }
    Ok(())
}

/// Something removed by somebody else meanwhile is as good.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn rm(tool: Tool, args: RmArgs) -> Result<Reply, Failure> {
    let At { view, paths } = open(args.cont.split(1, usize::MAX)?, "")?;
    for path in paths {
        let fail = |errno| failed("rm", &path, errno);
        // As rm(1): whoever writes a dot rarely means everything that is there.
        let mut parts = path
            .as_bytes()
            .rsplit(|c| *c == b'/')
            .filter(|part| !part.is_empty());
        if let Some(b"." | b"..") = parts.next() {
            return Err(fail(Errno::EINVAL).because("name the directory itself, without . and .."));
        }
        let target = view.walk(path.as_bytes(), false).map_err(fail)?;
        let ino = target.ino.ok_or_else(|| fail(Errno::ENOENT))?;
        if ino == view.root() {
            return Err(fail(Errno::EBUSY).because("to remove everything: daos container destroy"));
        }
        if view.stat(ino).map_err(fail)?.mode & S_IFMT != S_IFDIR {
            if target.slash {
                return Err(fail(Errno::ENOTDIR));
            }
            view.unlink(target.parent, &target.name).map_err(fail)?;
        } else if args.recursive {
            remove_contents(&view, ino).map_err(fail)?;
            view.rmdir(target.parent, &target.name).map_err(fail)?;
        } else {
            return Err(fail(Errno::EISDIR));
        }
    }
    tool.done("")
}

fn parse_mode(text: Option<&str>) -> Result<u32, Failure> {
    // The mask of the process, read the only way there is.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    match text {
        None => Ok(0o777 & !mask.bits()),
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err(Failure::usage(format!(
                "invalid mode {text:?} (octal, at most 7777)"
            ))),
        },
    }
}

fn mkdir(tool: Tool, args: MkdirArgs) -> Result<Reply, Failure> {
    let (mode, plain) = (parse_mode(args.mode.as_deref())?, parse_mode(None)?);
    let At { view, paths } = open(args.cont.split(1, usize::MAX)?, "")?;
    for path in paths {
        let fail = |errno| failed("mkdir", &path, errno);
        let bytes = path.as_bytes();
        let end = bytes
            .iter()
            .rposition(|c| *c != b'/')
            .map_or(0, |last| last + 1);
        let trimmed = bytes.get(..end).unwrap_or_default();
        if !args.parents {
            let target = view.walk(trimmed, false).map_err(fail)?;
            if target.ino.is_some() {
                return Err(fail(Errno::EEXIST));
            }
            view.mkdir(target.parent, &target.name, mode)
                .map_err(fail)?;
            continue;
        }
        for (at, _) in bytes.iter().enumerate().filter(|(_, c)| **c == b'/') {
            // As mkdir(1): the mode asked for is that of the last one.
            if at < end {
                ensure_dir(&view, bytes.get(..at).unwrap_or_default(), plain).map_err(fail)?;
            }
        }
        ensure_dir(&view, trimmed, mode).map_err(fail)?;
    }
    tool.done("")
}

/// Makes a directory unless it is there, or somebody else makes it meanwhile.
fn ensure_dir(view: &View, path: &[u8], mode: u32) -> Result<(), Errno> {
    let target = view.walk(path, true)?;
    let ino = match target.ino {
        Some(ino) => ino,
        None => match view.mkdir(target.parent, &target.name, mode) {
            Err(Errno::EEXIST) => view.find(path, true)?,
            made => made?,
        },
    };
    match view.stat(ino)?.mode & S_IFMT {
        S_IFDIR => Ok(()),
        _ => Err(Errno::ENOTDIR),
    }
}

fn transfer(tool: Tool, cont: ContArgs, mode: Mode) -> Result<Reply, Failure> {
    let names = cont.split(2, 2)?;
    let At { view, paths } = open(names.clone(), "")?;
    let (Some(from), Some(to)) = (paths.first(), paths.get(1)) else {
        return Err(Failure::usage("too few arguments; see --help"));
    };
    let counts = match mode {
        Mode::Put => put(&view, Path::new(from), to.as_bytes()),
        Mode::Get => get(&view, from.as_bytes(), Path::new(to)),
    };
    let to = name_text(to.as_bytes());
    let counts = counts.map_err(|stop| {
        let from = name_text(from.as_bytes());
        let outer = format!("failed to copy {from} -> {to}: {}", name_text(&stop.path));
        Failure::errno(outer, stop.errno).because(cure(stop.errno))
    })?;
    copied(tool, names, mode, &to, &counts)
}

/// Runs a `daos fs` command.
pub(crate) fn run(tool: Tool, command: FsCommand) -> Result<Reply, Failure> {
    match command {
        FsCommand::Ls(args) => ls(tool, args),
        FsCommand::Cat(cont) => cat(tool, cont),
        FsCommand::Rm(args) => rm(tool, args),
        FsCommand::Mkdir(args) => mkdir(tool, args),
        FsCommand::Put(cont) => transfer(tool, cont, Mode::Put),
        FsCommand::Get(cont) => transfer(tool, cont, Mode::Get),
        FsCommand::Copy(args) => copy(tool, &args),
        FsCommand::Check(args) => fs_check(tool, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_names_read_like_ls() {
        assert_eq!(mode_text(0o040_755), "drwxr-xr-x");
        assert_eq!(mode_text(0o104_711), "-rws--x--x");
        assert_eq!(mode_text(0o041_777), "drwxrwxrwt");
        assert_eq!(mode_text(0o102_644), "-rw-r-Sr--");
        assert_eq!(name_text("a\u{e4}".as_bytes()), "a\u{e4}");
        assert_eq!(name_text(b"a\nb\xff"), "a\\nb\\xff");
    }
}
