//! The calls of `ops` on a kernel file system, by raw system calls of a thread that has the tree as
//! its root directory.

use super::ops::{Answer, Op, UMASK, User};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use sys::{Result, syscall};

mod nr {
    pub(super) const CLOSE: usize = 3;
    pub(super) const UMASK: usize = 95;
    pub(super) const SETGROUPS: usize = 116;
    pub(super) const SETRESUID: usize = 117;
    pub(super) const SETRESGID: usize = 119;
    pub(super) const CHROOT: usize = 161;
    pub(super) const LSETXATTR: usize = 189;
    pub(super) const LGETXATTR: usize = 192;
    pub(super) const LREMOVEXATTR: usize = 198;
    pub(super) const GETDENTS64: usize = 217;
    pub(super) const OPENAT: usize = 257;
    pub(super) const MKDIRAT: usize = 258;
    pub(super) const MKNODAT: usize = 259;
    pub(super) const FCHOWNAT: usize = 260;
    pub(super) const UNLINKAT: usize = 263;
    pub(super) const LINKAT: usize = 265;
    pub(super) const SYMLINKAT: usize = 266;
    pub(super) const READLINKAT: usize = 267;
    pub(super) const FCHMODAT: usize = 268;
    pub(super) const UNSHARE: usize = 272;
    pub(super) const UTIMENSAT: usize = 280;
    pub(super) const RENAMEAT2: usize = 316;
    pub(super) const STATX: usize = 332;
    pub(super) const FACCESSAT2: usize = 439;
}

const AT_FDCWD: isize = -100;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_REMOVEDIR: usize = 0x200;
const AT_EACCESS: usize = 0x200;
const O_CREAT: usize = 0o100;
const O_EXCL: usize = 0o200;
const O_NONBLOCK: usize = 0o4000;
const O_DIRECTORY: usize = 0o200000;
const CLONE_FS: usize = 0x200;
const KEEP: usize = u32::MAX as usize;

/// A directory on tmpfs (or wherever temporary files go), removed with this.
pub(crate) struct Tree {
    path: PathBuf,
}

impl Tree {
    /// A fresh directory, mode 0777.
    pub(crate) fn new() -> Tree {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let path = base.join(format!("pil4dfs-tree-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("directory");
        Tree { path }
    }

    /// Makes the directory the root of the calling thread, for good. Fails without privilege.
    pub(crate) fn enter(&self) -> Result<()> {
        let path = CString::new(self.path.as_os_str().as_encoded_bytes()).expect("path");
        // SAFETY: affects only this thread, which the test made for the purpose.
        unsafe {
            syscall!(nr::UNSHARE, CLONE_FS)?;
            syscall!(nr::CHROOT, path.as_ptr())?;
            syscall!(nr::UMASK, 0)?;
        }
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).expect("cleaned");
    }
}

/// Makes a call as `user` on the calling thread's root directory.
pub(crate) fn run(user: User, op: &Op) -> Answer {
    // SAFETY: credentials and mask of this thread only; the effective ids come back below.
    unsafe {
        syscall!(nr::UMASK, UMASK).expect("umask");
        syscall!(nr::SETGROUPS, user.groups.len(), user.groups.as_ptr()).expect("groups");
        syscall!(nr::SETRESGID, KEEP, user.uid, KEEP).expect("gid");
        syscall!(nr::SETRESUID, KEEP, user.uid, KEEP).expect("uid");
    }
    let answer = call(op);
    // SAFETY: as above.
    unsafe {
        syscall!(nr::SETRESUID, KEEP, 0, KEEP).expect("uid");
        syscall!(nr::SETRESGID, KEEP, 0, KEEP).expect("gid");
    }
    answer.into()
}

fn c(path: &str) -> CString {
    CString::new(path).expect("no 0 in paths")
}

fn rooted(path: &str) -> CString {
    c(&format!("/{path}"))
}

fn call(op: &Op) -> Result<Answer> {
    let at = AT_FDCWD;
    // SAFETY: every pointer is to a live C string or buffer of the length given.
    unsafe {
        match op {
            Op::Create {
                path,
                mode,
                exclusive,
            } => {
                let flags = O_CREAT | O_NONBLOCK | if *exclusive { O_EXCL } else { 0 };
                let arg1 = rooted(path);
                let fd = syscall!(nr::OPENAT, at, arg1.as_ptr(), flags, *mode)?;
                syscall!(nr::CLOSE, fd)?;
            }
            Op::Mkdir { path, mode } => {
                let arg1 = rooted(path);
                syscall!(nr::MKDIRAT, at, arg1.as_ptr(), *mode)?;
            }
            Op::Mknod { path, mode, rdev } => {
                let arg1 = rooted(path);
                syscall!(nr::MKNODAT, at, arg1.as_ptr(), *mode, *rdev)?;
            }
            Op::Symlink { target, path } => {
                let arg1 = c(target);
                let arg2 = rooted(path);
                syscall!(nr::SYMLINKAT, arg1.as_ptr(), at, arg2.as_ptr())?;
            }
            Op::Link { from, to } => {
                let arg1 = rooted(from);
                let arg2 = rooted(to);
                syscall!(nr::LINKAT, at, arg1.as_ptr(), at, arg2.as_ptr(), 0)?;
            }
            Op::Unlink { path } => {
                let arg1 = rooted(path);
                syscall!(nr::UNLINKAT, at, arg1.as_ptr(), 0)?;
            }
            Op::Rmdir { path } => {
                let arg1 = rooted(path);
                syscall!(nr::UNLINKAT, at, arg1.as_ptr(), AT_REMOVEDIR)?;
            }
            Op::Rename { from, to, flags } => {
                let (from, to) = (rooted(from), rooted(to));
                syscall!(nr::RENAMEAT2, at, from.as_ptr(), at, to.as_ptr(), *flags)?;
            }
            _ => return attributes(op),
        }
    }
    Ok(Answer::Done)
}

fn attributes(op: &Op) -> Result<Answer> {
    let at = AT_FDCWD;
    let nofollow = |follow: bool| if follow { 0 } else { AT_SYMLINK_NOFOLLOW };
    // SAFETY: every pointer is to a live C string or buffer of the length given.
    unsafe {
        match op {
            Op::Chmod { path, mode } => {
                let arg1 = rooted(path);
                syscall!(nr::FCHMODAT, at, arg1.as_ptr(), *mode)?;
            }
            Op::Chown {
                path,
                uid,
                gid,
                follow,
            } => {
                let id = |id: &Option<u32>| id.unwrap_or(u32::MAX);
                let (path, flags) = (rooted(path), nofollow(*follow));
                syscall!(nr::FCHOWNAT, at, path.as_ptr(), id(uid), id(gid), flags)?;
            }
            Op::Utimens { path, times } => {
                let spec = times.map(|(atime, mtime)| {
                    [atime, mtime].map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000])
                });
                let pointer = spec.as_ref().map_or(std::ptr::null(), |spec| spec.as_ptr());
                let arg1 = rooted(path);
                syscall!(nr::UTIMENSAT, at, arg1.as_ptr(), pointer, 0)?;
            }
            Op::Access { path, mask } => {
                let arg1 = rooted(path);
                syscall!(nr::FACCESSAT2, at, arg1.as_ptr(), *mask, AT_EACCESS)?;
            }
            Op::Stat { path, follow } => return stat(&rooted(path), nofollow(*follow)),
            Op::Readlink { path } => {
                let mut buf = vec![0u8; 4096];
                let path = rooted(path);
                let len = syscall!(nr::READLINKAT, at, path.as_ptr(), buf.as_mut_ptr(), 4096)?;
                buf.truncate(len);
                return Ok(Answer::Bytes(buf));
            }
            Op::SetXattr {
                path,
                name,
                value,
                flags,
            } => {
                let (path, name) = (rooted(path), c(name));
                let (value, len) = (value.as_ptr(), value.len());
                syscall!(
                    nr::LSETXATTR,
                    path.as_ptr(),
                    name.as_ptr(),
                    value,
                    len,
                    *flags
                )?;
            }
            Op::GetXattr { path, name } => {
                let (path, name) = (rooted(path), c(name));
                let mut buf = vec![0u8; 4096];
                let out = buf.as_mut_ptr();
                let len = syscall!(nr::LGETXATTR, path.as_ptr(), name.as_ptr(), out, 4096)?;
                buf.truncate(len);
                return Ok(Answer::Bytes(buf));
            }
            Op::RemoveXattr { path, name } => {
                let arg1 = rooted(path);
                let arg2 = c(name);
                syscall!(nr::LREMOVEXATTR, arg1.as_ptr(), arg2.as_ptr())?;
            }
            Op::List { path } => return list(&rooted(path)),
            _ => unreachable!("made elsewhere"),
        }
    }
    Ok(Answer::Done)
}

fn stat(path: &CString, flags: usize) -> Result<Answer> {
    const BASIC_STATS: usize = 0x7ff;
    let mut buf = [0u32; 64];
    // SAFETY: struct statx is 256 bytes.
    unsafe {
        syscall!(
            nr::STATX,
            AT_FDCWD,
            path.as_ptr(),
            flags,
            BASIC_STATS,
            buf.as_mut_ptr()
        )?
    };
    let mode = buf[7] & 0xffff;
    let size = u64::from(buf[10]) | u64::from(buf[11]) << 32;
    let size = if mode & 0o170000 == 0o040000 { 0 } else { size };
    let (major, minor) = (u64::from(buf[32]), u64::from(buf[33]));
    let rdev = minor & 0xff | major << 8 | (minor & !0xff) << 12;
    Ok(Answer::Stat {
        mode,
        nlink: buf[4],
        uid: buf[5],
        gid: buf[6],
        rdev,
        size,
    })
}

fn list(path: &CString) -> Result<Answer> {
    let mut names = Vec::new();
    let mut buf = vec![0u8; 32_768];
    // SAFETY: the buffer is live and as long as said.
    let fd = unsafe { syscall!(nr::OPENAT, AT_FDCWD, path.as_ptr(), O_DIRECTORY, 0)? };
    loop {
        // SAFETY: as above.
        let len = unsafe { syscall!(nr::GETDENTS64, fd, buf.as_mut_ptr(), buf.len()) };
        let len = len.expect("getdents64");
        if len == 0 {
            break;
        }
        let mut at = 0;
        while at < len {
            let size = usize::from(u16::from_ne_bytes([buf[at + 16], buf[at + 17]]));
            let name = buf[at + 19..at + size]
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or(&[]);
            names.push((String::from_utf8_lossy(name).into_owned(), buf[at + 18]));
            at += size;
        }
    }
    // SAFETY: the descriptor was opened above.
    unsafe { syscall!(nr::CLOSE, fd)? };
    names.sort();
    Ok(Answer::Names(names))
}

/// Is the rule of `fs.protected_hardlinks` in force, which containers always follow?
pub(crate) fn protects_hardlinks() -> bool {
    std::fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|text| text.starts_with(b"1"))
}
