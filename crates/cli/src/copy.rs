//! `daos fs copy`: between a local path and a container, named as `daos://pool/container/path`.

use crate::container_create::create_plain;
use crate::fs::name_text;
use crate::names::ContNames;
use crate::output::{Failure, Reply, Tool};
use crate::session::{find_pool, open_container};
use crate::transfer::{Counts, Mode, Stop, get, put};
use clap::Args;
use daos_types::Der;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;

/// Arguments of `fs copy`.
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// copy source
    #[arg(short = 's', long, value_name = "PATH")]
    src: OsString,
    /// copy destination
    #[arg(short = 'd', long, value_name = "PATH")]
    dst: OsString,
    /// accepted for compatibility: everything is supported
    #[arg(long)]
    ignore_unsupported: bool,
}

/// One side of a copy.
#[derive(PartialEq, Eq, Debug)]
enum Side {
    Local(PathBuf),
    Container {
        pool: String,
        /// `None` stands for a container to be made.
        cont: Option<String>,
        path: Vec<u8>,
    },
}

fn side(word: &OsStr) -> Side {
    let Some(mut rest) = word.as_bytes().strip_prefix(b"daos:") else {
        return Side::Local(word.into());
    };
    while let Some(below) = rest.strip_prefix(b"/") {
        rest = below;
    }
    let mut parts = rest.splitn(3, |c| *c == b'/');
    let name = |part: Option<&[u8]>| part.map(|part| String::from_utf8_lossy(part).into_owned());
    let (pool, cont) = (name(parts.next()), name(parts.next()));
    let path = parts.next();
    Side::Container {
        pool: pool.unwrap_or_default(),
        // Nothing between two slashes is a name that was forgotten, not one to be chosen.
        cont: cont.filter(|cont| !cont.is_empty() || path.is_some()),
        path: [b"/", path.unwrap_or_default()].concat(),
    }
}

/// The line DAOS prints before its error line, `text (code)`.
fn lead(what: &str, der: Der) -> String {
    format!("{what}: {} ({})", der.text(), der.code())
}

/// A side's pool that cannot be opened, in the words of DAOS.
fn no_pool(which: &str, outer: &str, pool: &str, failure: Failure, path: &[u8]) -> Failure {
    let der = Der::from_code(failure.status).unwrap_or(Der::Misc);
    let path = name_text(path);
    let hint = match path.trim_start_matches('/') {
        "" => failure.message,
        rest if pool == "tmp" => {
            format!("{pool} is taken for the pool; a mounted container is written daos://{rest}")
        }
        _ => failure.message,
    };
    let mut refused = Failure::der(outer, der).because(hint);
    refused.lead = vec![
        lead(&format!("failed to connect to {which} pool"), der),
        lead("fs copy failed to connect", der),
    ];
    refused
}

/// What to do about a copy that stopped.
pub(crate) fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            "no space left; what was copied so far stays: free space, or copy to where there is more"
        }
        Errno::ENOENT => {
            "name a file that exists, and a destination in a directory that exists: daos fs mkdir -p"
        }
        Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST => {
            "file and directory meet under one name: name another destination"
        }
        Errno::EACCES | Errno::EPERM | Errno::EROFS => {
            "see to the owner and mode of the file and of the directories above it, or copy elsewhere"
        }
        Errno::EIO => "find out what is damaged: daos container check; the rest can be copied",
        _ => "what was copied so far stays; copy again once the cause is mended",
    }
}

fn stopped(outer: &str, stop: &Stop) -> Failure {
    let der = Der::from_errno(stop.errno.code());
    let at = name_text(&stop.path);
    let why = format!("{at}: {}; {}", stop.errno, cure(stop.errno));
    let mut failure = Failure::der(outer, der).because(why);
    failure.lead = vec![
        lead(&format!("Failed to copy '{at}'"), der),
        lead("fs copy failed", der),
    ];
    failure
}

/// `fs copy`.
pub(crate) fn copy(tool: Tool, args: &CopyArgs) -> Result<Reply, Failure> {
    let shown = |word: &OsStr| name_text(word.as_bytes());
    let (src, dst) = (shown(&args.src), shown(&args.dst));
    let outer = format!("failed to copy {src} -> {dst}");
    let (from, to) = (side(&args.src), side(&args.dst));
    for side in [&from, &to] {
        if matches!(side, Side::Container { cont: Some(cont), .. } if cont.is_empty()) {
            let why = "no container is named between two slashes; to make one: daos://pool";
            return Err(Failure::der(outer, Der::Inval).because(why));
        }
    }
    match (from, to) {
        (Side::Local(from), Side::Container { pool, cont, path }) => {
            if let Err(error) = from.symlink_metadata() {
                let errno = Errno::new(error.raw_os_error().unwrap_or(5));
                let der = Der::from_errno(errno.code());
                let mut failure = Failure::der(outer, der).because(cure(errno));
                let stat = format!("Failed to stat '{src}'");
                failure.lead = vec![lead(&stat, der), lead("fs copy failed", der)];
                return Err(failure);
            }
            into(tool, &outer, &from, &dst, (pool, cont, path))
        }
        (Side::Container { pool, cont, path }, Side::Local(to)) => {
            let Some(cont) = cont else {
                return Err(
                    Failure::der(outer, Der::Inval).because("the source names no container")
                );
            };
            find_pool(&pool, "").map_err(|f| no_pool("source", &outer, &pool, f, &path))?;
            let names = ContNames {
                pool,
                cont,
                rest: Vec::new(),
            };
            let mut opened = open_container(names.clone(), &outer)?.hold(&outer)?;
            let view = opened.view(&outer)?;
            let counts = get(&view, &path, &to).map_err(|s| stopped(&outer, &s))?;
            copied(tool, names, Mode::Get, &dst, &counts)
        }
        (Side::Local(_), Side::Local(_)) => {
            let why = "one side must be in a container: daos://pool/container/path";
            Err(Failure::der(outer, Der::Inval).because(why))
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            let why = "from container to container is not served yet; copy by way of a directory";
            Err(Failure::der(outer, Der::NotSupported).because(why))
        }
    }
}

fn into(
    tool: Tool,
    outer: &str,
    from: &Path,
    to: &str,
    (pool, cont, path): (String, Option<String>, Vec<u8>),
) -> Result<Reply, Failure> {
    let found = find_pool(&pool, "").map_err(|failure| {
        let path = [cont.as_deref().unwrap_or_default().as_bytes(), &path].concat();
        no_pool("destination", outer, &pool, failure, &path)
    })?;
    let known = cont.clone().map(|cont| {
        open_container(
            ContNames {
                pool: pool.clone(),
                cont,
                rest: Vec::new(),
            },
            outer,
        )
    });
    let (mut opened, made) = match known {
        Some(Ok(opened)) => (opened, None),
        Some(Err(failure)) if failure.status != Der::NonExist.code() => return Err(failure),
        _ => {
            let opened = create_plain(&found, cont.clone())?;
            let uuid = opened.info.uuid;
            (opened, Some(uuid))
        }
    };
    opened = opened.hold(outer)?;
    let view = opened.view(outer)?;
    let counts = match put(&view, from, &path) {
        Ok(counts) => counts,
        Err(stop) => {
            let mut failure = stopped(outer, &stop);
            if let Some(uuid) = made {
                let is_empty = view.list(view.root()).is_ok_and(|found| found.is_empty());
                drop(view);
                if !is_empty || opened.destroy(true).is_err() {
                    failure = failure.because(format!("container {uuid} was created"));
                }
            }
            return Err(failure);
        }
    };
    let cont = cont.unwrap_or_else(|| opened.info.uuid.to_string());
    let names = ContNames {
        pool,
        cont,
        rest: Vec::new(),
    };
    let mut reply = copied(tool, names, Mode::Put, to, &counts)?;
    if let Some(uuid) = made {
        reply
            .text
            .push_str(&format!("Successfully created container {uuid}\n"));
    }
    Ok(reply)
}

#[derive(Serialize)]
struct CopyStats {
    num_dirs: u64,
    num_files: u64,
    num_links: u64,
}

#[derive(Serialize)]
struct CopyJson {
    src_pool: String,
    src_cont: String,
    dst_pool: String,
    dst_cont: String,
    copy_stats: CopyStats,
}

/// What a copy says of itself.
pub(crate) fn copied(
    tool: Tool,
    names: ContNames,
    mode: Mode,
    to: &str,
    counts: &Counts,
) -> Result<Reply, Failure> {
    let where_to = match mode {
        Mode::Put => "DAOS",
        Mode::Get => "POSIX",
    };
    let text = format!(
        "Successfully copied to {where_to}: {to}\n    Directories: {}\n    Files:       {}\n    \
         Links:       {}\n",
        counts.dirs, counts.files, counts.links
    );
    let (inside, outside) = ((names.pool, names.cont), (String::new(), String::new()));
    let (src, dst) = match mode {
        Mode::Put => (outside, inside),
        Mode::Get => (inside, outside),
    };
    let copy_stats = CopyStats {
        num_dirs: counts.dirs,
        num_files: counts.files,
        num_links: counts.links,
    };
    let json = CopyJson {
        src_pool: src.0,
        src_cont: src.1,
        dst_pool: dst.0,
        dst_cont: dst.1,
        copy_stats,
    };
    tool.reply(text, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let inside = |pool: &str, cont: Option<&str>, path: &str| Side::Container {
            pool: pool.to_owned(),
            cont: cont.map(str::to_owned),
            path: path.as_bytes().to_vec(),
        };
        let side = |word: &str| super::side(OsStr::new(word));
        assert_eq!(side("daos://p/c/x/y"), inside("p", Some("c"), "/x/y"));
        assert_eq!(side("daos:p/c"), inside("p", Some("c"), "/"));
        assert_eq!(side("daos://p"), inside("p", None, "/"));
        assert_eq!(side("daos://p/"), inside("p", None, "/"));
        assert_eq!(side("daos://p//x"), inside("p", Some(""), "/x"));
        assert_eq!(side("/tmp/x"), Side::Local("/tmp/x".into()));
    }
}
