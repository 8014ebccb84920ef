//! From a system-call number to its handler, and from a handler's result to the program's.

use crate::abi::nr;
use crate::calls::{
    aio, attr, copy, data, dir, dup, ioctl, lock, map, message, name, open, process, refuse,
    socket, stat, xattr,
};
use intercept::classes::{CLASS_COUNT, Class, ClassTable, FILE_CALLS};
use intercept::{Call, Outcome, paths};
use sys::Errno;

/// Why a handler did not produce a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Not ours: the kernel does it, unchanged.
    Pass,
    /// Not ours as far as we can see; if the kernel finds nothing, look again for a symbolic link
    /// into the mount.
    PassThenLook,
    /// The kernel does it; the handler's second half sees the result.
    PassThen(After),
    /// The same, with an address for the second half, a multiple of 16.
    PassThenWith(After, usize),
    /// Ours, and it failed.
    Fail(Errno),
    /// The kernel has done it already; its raw result.
    Kernel(isize),
}

/// Second halves of handlers, run when the kernel has finished the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum After {
    /// A path call failed perhaps because of a symbolic link into the mount.
    Look = 1,
    /// The kernel's working directory changed.
    Chdir,
    /// Descriptors may have arrived.
    Recvmsg,
    /// Descriptors may have arrived, several messages.
    Recvmmsg,
    /// A descriptor was copied from another process.
    Pidfd,
    /// Credentials changed.
    Credentials,
    /// The umask changed.
    Umask,
    /// An exec failed; the address is that of its launch.
    Exec,
    /// The process's limits may have changed.
    Limits,
    /// The call pointed into memory of ours, at the address.
    Lent,
    /// Events of asynchronous requests may have arrived.
    Events,
    /// The kernel has given the address of a socket.
    Address,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Fail(errno)
    }
}

/// What a handler returns: the value for the program, or why there is none.
pub(crate) type Served = Result<usize, Stop>;

/// A handler of one system call.
pub(crate) type Handler = fn(&mut Call) -> Served;

/// Serves a call or says that the kernel does it.
pub(crate) fn dispatch(call: &mut Call) -> Outcome {
    match handler(call.nr) {
        None => Outcome::Pass,
        Some(handler) if paths::kernel_refused() => refused(handler, call),
        Some(handler) => outcome(handler(call)),
    }
}

/// The kernel has found nothing at a path that looked foreign: only a symbolic link can still make
/// it ours.
#[cold]
fn refused(handler: Handler, call: &mut Call) -> Outcome {
    let number = call.nr;
    call.nr = crate::route::look(call);
    let served = handler(call);
    match served {
        Ok(_) | Err(Stop::Fail(_) | Stop::Kernel(_) | Stop::PassThenWith(..)) => outcome(served),
        Err(Stop::Pass | Stop::PassThen(_) | Stop::PassThenLook) => {
            call.nr = number;
            Outcome::Done(Errno::ENOENT.as_ret())
        }
    }
}

fn outcome(served: Served) -> Outcome {
    match served {
        Ok(value) => Outcome::Done(value as isize),
        Err(Stop::Fail(errno)) => Outcome::Done(errno.as_ret()),
        Err(Stop::Pass) => Outcome::Pass,
        Err(Stop::PassThenLook) => Outcome::PassThen(After::Look as usize),
        Err(Stop::PassThen(after)) => Outcome::PassThen(after as usize),
        Err(Stop::PassThenWith(after, address)) => Outcome::PassThen(address | after as usize),
        Err(Stop::Kernel(ret)) => Outcome::Done(ret),
    }
}

/// Bits of a token that say which second half; the rest is an address.
const WHICH: usize = 15;

/// Runs the second half of a handler; returns what the program gets.
pub(crate) fn after(call: &Call, result: isize, token: usize) -> isize {
    const LOOK: usize = After::Look as usize;
    const CHDIR: usize = After::Chdir as usize;
    const RECVMSG: usize = After::Recvmsg as usize;
    const RECVMMSG: usize = After::Recvmmsg as usize;
    const PIDFD: usize = After::Pidfd as usize;
    const CREDENTIALS: usize = After::Credentials as usize;
    const UMASK: usize = After::Umask as usize;
    const EXEC: usize = After::Exec as usize;
    const LIMITS: usize = After::Limits as usize;
    const LENT: usize = After::Lent as usize;
    const EVENTS: usize = After::Events as usize;
    const ADDRESS: usize = After::Address as usize;
    match token & WHICH {
        LOOK => return crate::route::look_again(call, result),
        CHDIR if result >= 0 => crate::cwd::kernel_changed(),
        CHDIR => return crate::route::look_again(call, result),
        RECVMSG if result >= 0 => crate::handover::received(call.args[1], call.args[2]),
        RECVMMSG => crate::handover::received_many(call, result),
        PIDFD if result >= 0 => crate::handover::adopt(result as i32, crate::files::Came::Copied),
        CREDENTIALS => crate::cred::changed(),
        UMASK => crate::cred::umask_changed(call, result),
        LIMITS => crate::limits::learn(),
        LENT => socket::sent(call, result, token & !WHICH),
        EVENTS => aio::arrived(call, result),
        ADDRESS => return socket::answered(result, token & !WHICH),
        EXEC => return crate::exec::failed(call, result, token & !WHICH),
        _ => {}
    }
    result
}

/// The handler of a call, if we take it.
pub(crate) fn handler(number: usize) -> Option<Handler> {
    TABLE.get(number).copied().flatten()
}

/// Which calls come here: what the front end offers, and a few that must always be seen.
pub(crate) const CLASSES: ClassTable = {
    let mut table = FILE_CALLS;
    let always = [
        nr::CHDIR,
        nr::FCHDIR,
        nr::CLOSE_RANGE,
        nr::SETUID,
        nr::SETGID,
        nr::SETREUID,
        nr::SETREGID,
        nr::SETRESUID,
        nr::SETRESGID,
        nr::SETGROUPS,
        nr::SETFSUID,
        nr::SETFSGID,
        nr::BIND,
        nr::CONNECT,
        nr::ACCEPT,
        nr::ACCEPT4,
        nr::GETSOCKNAME,
        nr::GETPEERNAME,
        nr::GETDENTS,
        nr::GETDENTS64,
    ];
    let mut i = 0;
    while i < always.len() {
        table[always[i]] = Class::Always;
        i += 1;
    }
    table[nr::SENDTO] = Class::Arg4;
    table[nr::RECVFROM] = Class::Arg4;
    table
};

macro_rules! table {
    ($($number:ident => $handler:path,)*) => {
        const TABLE: [Option<Handler>; CLASS_COUNT] = {
            let mut table: [Option<Handler>; CLASS_COUNT] = [None; CLASS_COUNT];
            $(table[nr::$number] = Some($handler as Handler);)*
            table
        };
    };
}

table! {
    OPEN => open::open,
    OPENAT => open::openat,
    OPENAT2 => open::openat2,
    CREAT => open::creat,
    READ => data::read,
    WRITE => data::write,
    PREAD64 => data::pread64,
    PWRITE64 => data::pwrite64,
    READV => data::readv,
    WRITEV => data::writev,
    PREADV => data::preadv,
    PWRITEV => data::pwritev,
    PREADV2 => data::preadv2,
    PWRITEV2 => data::pwritev2,
    LSEEK => data::lseek,
    FTRUNCATE => data::ftruncate,
    FALLOCATE => data::fallocate,
    FSYNC => data::fsync,
    FDATASYNC => data::fsync,
    SYNC_FILE_RANGE => data::sync_file_range,
    SYNCFS => data::syncfs,
    SYNC => data::sync,
    FADVISE64 => data::fadvise64,
    READAHEAD => data::readahead,
    STAT => stat::stat,
    LSTAT => stat::lstat,
    FSTAT => stat::fstat,
    NEWFSTATAT => stat::newfstatat,
    STATX => stat::statx,
    STATFS => stat::statfs,
    FSTATFS => stat::fstatfs,
    GETDENTS64 => dir::getdents64,
    GETDENTS => dir::getdents,
    CHDIR => dir::chdir,
    FCHDIR => dir::fchdir,
    GETCWD => dir::getcwd,
    MKDIR => name::mkdir,
    MKDIRAT => name::mkdirat,
    MKNOD => name::mknod,
    MKNODAT => name::mknodat,
    RMDIR => name::rmdir,
    UNLINK => name::unlink,
    UNLINKAT => name::unlinkat,
    RENAME => name::rename,
    RENAMEAT => name::renameat,
    RENAMEAT2 => name::renameat2,
    LINK => name::link,
    LINKAT => name::linkat,
    SYMLINK => name::symlink,
    SYMLINKAT => name::symlinkat,
    READLINK => name::readlink,
    READLINKAT => name::readlinkat,
    CHMOD => attr::chmod,
    FCHMOD => attr::fchmod,
    FCHMODAT => attr::fchmodat,
    FCHMODAT2 => attr::fchmodat2,
    CHOWN => attr::chown,
    LCHOWN => attr::lchown,
    FCHOWN => attr::fchown,
    FCHOWNAT => attr::fchownat,
    UTIMENSAT => attr::utimensat,
    UTIMES => attr::utimes,
    FUTIMESAT => attr::futimesat,
    UTIME => attr::utime,
    TRUNCATE => attr::truncate,
    ACCESS => attr::access,
    FACCESSAT => attr::faccessat,
    FACCESSAT2 => attr::faccessat2,
    UMASK => attr::umask,
    SETUID => attr::set_uids,
    SETGID => attr::set_ids,
    SETREUID => attr::set_uids,
    SETREGID => attr::set_ids,
    SETRESUID => attr::set_uids,
    SETRESGID => attr::set_ids,
    SETGROUPS => attr::set_ids,
    BIND => socket::bind,
    CONNECT => socket::connect,
    SENDTO => socket::sendto,
    RECVFROM => socket::recvfrom,
    ACCEPT => socket::accept,
    ACCEPT4 => socket::accept,
    GETSOCKNAME => socket::name_of_socket,
    GETPEERNAME => socket::name_of_socket,
    PRLIMIT64 => process::limits_change,
    SETRLIMIT => process::limits_change,
    SETFSUID => attr::set_fs_ids,
    SETFSGID => attr::set_fs_ids,
    GETXATTR => xattr::getxattr,
    LGETXATTR => xattr::lgetxattr,
    FGETXATTR => xattr::fgetxattr,
    SETXATTR => xattr::setxattr,
    LSETXATTR => xattr::lsetxattr,
    FSETXATTR => xattr::fsetxattr,
    LISTXATTR => xattr::listxattr,
    LLISTXATTR => xattr::llistxattr,
    FLISTXATTR => xattr::flistxattr,
    REMOVEXATTR => xattr::removexattr,
    LREMOVEXATTR => xattr::lremovexattr,
    FREMOVEXATTR => xattr::fremovexattr,
    GETXATTRAT => xattr::getxattrat,
    SETXATTRAT => xattr::setxattrat,
    LISTXATTRAT => xattr::listxattrat,
    REMOVEXATTRAT => xattr::removexattrat,
    CLOSE => dup::close,
    DUP => dup::dup,
    DUP2 => dup::dup2,
    DUP3 => dup::dup3,
    FCNTL => dup::fcntl,
    CLOSE_RANGE => dup::close_range,
    FLOCK => lock::flock,
    SENDFILE => copy::sendfile,
    COPY_FILE_RANGE => copy::copy_file_range,
    SPLICE => copy::splice,
    TEE => copy::tee,
    VMSPLICE => copy::vmsplice,
    MMAP => map::mmap,
    MUNMAP => map::munmap,
    MREMAP => map::mremap,
    MSYNC => map::msync,
    MADVISE => map::madvise,
    EXECVE => process::execve,
    EXECVEAT => process::execveat,
    EXIT_GROUP => process::exit_group,
    UNSHARE => process::unshare,
    CHROOT => process::chroot,
    SETNS => process::setns,
    IOCTL => ioctl::ioctl,
    SENDMSG => socket::sendmsg,
    SENDMMSG => socket::sendmmsg,
    RECVMSG => socket::recvmsg,
    RECVMMSG => message::recvmmsg,
    PIDFD_GETFD => message::pidfd_getfd,
    IO_URING_SETUP => refuse::io_uring_setup,
    IO_SUBMIT => aio::io_submit,
    IO_GETEVENTS => aio::io_getevents,
    IO_PGETEVENTS => aio::io_getevents,
    INOTIFY_ADD_WATCH => refuse::inotify_add_watch,
    FANOTIFY_MARK => refuse::fanotify_mark,
    NAME_TO_HANDLE_AT => refuse::name_to_handle_at,
    OPEN_BY_HANDLE_AT => refuse::open_by_handle_at,
    OPEN_TREE => refuse::open_tree,
}
