//! State that crosses fork, vfork, exec and SCM_RIGHTS.
//!
//! Nothing is passed in the environment: descriptors carry their description's number in the
//! kernel, the working directory carries its inode in its name. Here the two sides meet.

use crate::abi::{self, CmsgHdr, MsgHdr, nr};
use crate::files::Came;
use crate::kernel::{self, addr_mut, call};
use crate::{files, mounts, placeholder, running, user};
use core::sync::atomic::{AtomicBool, Ordering};
use dfs::{Dfs, ForkToken, Ofd};
use intercept::{Call, CloneKind};
use std::vec::Vec;
use sys::Errno;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
/// Longest ancillary data looked at: 253 descriptors is what the kernel passes at most.
const CONTROL_MAX: usize = 8192;

/// Descriptors were found at start whose descriptions still belong to the former image.
static INHERITED: AtomicBool = AtomicBool::new(false);

/// Open descriptors of the calling process, as the kernel lists them.
pub(crate) fn open_descriptors() -> Vec<i32> {
    let mut open = Vec::new();
    let Ok(dir) = kernel::open(c"/proc/self/fd", abi::O_DIRECTORY | abi::O_CLOEXEC) else {
        return open;
    };
    let mut buffer = [0u8; 2048];
    while let Ok(len @ 1..) = call!(
        nr::GETDENTS64,
        dir,
        addr_mut(&mut buffer),
        size_of_val(&buffer)
    ) {
        let mut rest = buffer.get(..len).unwrap_or(&[]);
        while let Some(record) = rest.get(16..18) {
            let record_len = usize::from(u16::from_le_bytes([record[0], record[1]]));
            let name = rest.get(19..record_len).unwrap_or(&[]);
            let name = name.split(|&b| b == 0).next().unwrap_or(&[]);
            let number = core::str::from_utf8(name)
                .ok()
                .and_then(|n| n.parse::<i32>().ok());
            open.extend(number.filter(|&fd| fd != dir));
            rest = rest.get(record_len.max(19)..).unwrap_or(&[]);
        }
    }
    kernel::close(dir);
    open
}

/// At start: finds descriptors inherited from the former image. The container is not attached.
pub(crate) fn find_inherited() {
    for fd in open_descriptors() {
        if let Some(ofd) = placeholder::identify(fd)
            && files::adopt(fd, ofd, Came::Inherited).is_ok()
        {
            INHERITED.store(true, Ordering::Relaxed);
            files::uses_locks();
        }
    }
}

/// At start, when the former image says that it held more than it handed over.
pub(crate) fn let_go_of_what_exec_closed() {
    // A failure has been said and leaves a process without a mount.
    mounts::fs().ok();
}

/// The container with this number is being attached: what was inherited becomes this process's own.
pub(crate) fn attaching(fs: &Dfs, id: u64) {
    if INHERITED.swap(false, Ordering::Relaxed) {
        for (fd, _) in files::all() {
            // Looked at again, now that the container's number is known.
            let is_ours = placeholder::identify_in(fd, id).is_some();
            if is_ours && placeholder::is_current(fd, fs) {
                continue;
            }
            files::disown(fd);
            if is_ours {
                told(files::adopt(fd, placeholder::NONE, Came::Inherited));
            }
        }
    }
    running::attaching(fs);
    // Also without any: a few dead processes' affairs are settled at each attach.
    told(fs.attach_process(&descriptions()));
}

/// Descriptions of all our descriptors and of the program that runs, each once.
fn descriptions() -> Vec<Ofd> {
    let mut found: Vec<Ofd> = files::all().into_iter().map(|(_, ofd)| ofd).collect();
    found.extend(running::held());
    found.sort_unstable_by_key(|ofd| ofd.0);
    found.dedup();
    found
}

/// A description that is gone, or a pool in trouble: the calls on it will say so.
fn told(outcome: sys::Result<()>) {
    debug_assert!(outcome != Err(Errno::EFAULT));
}

/// Token of the fork under way, if there is anything to inherit. Forks of a process come one by
/// one (`files::before_fork`).
struct ForkCell(core::cell::UnsafeCell<Option<ForkToken>>);

// SAFETY: used only between `files::before_fork` and `files::after_fork`, which is one thread.
unsafe impl Sync for ForkCell {}

static FORK: ForkCell = ForkCell(core::cell::UnsafeCell::new(None));

impl ForkCell {
    fn put(&self, token: Option<ForkToken>) {
        // SAFETY: see the type.
        unsafe { *self.0.get() = token };
    }

    fn take(&self) -> Option<ForkToken> {
        // SAFETY: see the type.
        unsafe { (*self.0.get()).take() }
    }
}

/// Before fork, vfork and clone, in the parent.
pub(crate) fn before_clone(kind: CloneKind) {
    match kind {
        CloneKind::Thread => {}
        CloneKind::Fork => {
            // What the former image has left to this one becomes its child's too. A failure has been
            // said and leaves a process without a mount.
            running::join();
            mounts::await_attach();
            let fs = match INHERITED.load(Ordering::Relaxed) {
                true => mounts::fs().ok(),
                false => mounts::attached(),
            };
            files::before_fork();
            crate::calls::map::before_fork();
            FORK.put(fs.and_then(prepare_fork));
        }
        CloneKind::Vfork => {
            // The child may use the mount but must not attach: its descriptors are not ours. A
            // failure has been said and leaves a process without a mount.
            if mounts::path().is_some() && mounts::fs().is_ok() {
                files::publish_all(false);
                told(dfs::vfork::prepare());
            }
        }
    }
}

fn prepare_fork(fs: &Dfs) -> Option<ForkToken> {
    if intercept::in_vfork_child() {
        // What a vfork child has is its parent's, and has to be held to be inherited.
        told(fs.exec_prepare(&descriptions()));
    }
    fs.fork_prepare().unwrap_or(None)
}

/// After the call, in the parent; `result` is the child's id or `-errno`.
pub(crate) fn after_clone(kind: CloneKind, result: isize) {
    match kind {
        CloneKind::Thread => {}
        CloneKind::Vfork => {
            if !crate::exec::vfork_is_over()
                && let Some(fs) = mounts::attached()
            {
                told(fs.vfork_child_ended());
            }
            crate::cwd::filter();
        }
        CloneKind::Fork => {
            if let Some(token) = FORK.take().filter(|_| result < 0)
                && let Some(fs) = mounts::attached()
            {
                told(fs.fork_failed(token));
            }
            crate::calls::map::after_fork();
            files::after_fork();
        }
    }
}

/// In the child of a fork, before it runs on: takes over what it inherited, before its parent can
/// end or close it. libc sets up the child's robust-futex list only after the fork returns, and the
/// engine's owner slot must not be on the list it replaces: so the child gives that back at once.
pub(crate) fn child_after_fork() {
    sys::set_once::after_fork();
    crate::calls::aio::after_fork();
    crate::calls::map::after_fork();
    crate::placeholder::after_fork();
    let token = FORK.take();
    files::after_fork();
    files::recount();
    let Some(fs) = mounts::attached() else { return };
    match token {
        Some(token) => {
            told(fs.ofd_adopt_after_fork(token, &descriptions()));
            told(fs.pool().leave());
        }
        // What another thread was just opening is nobody's here.
        None => files::all()
            .into_iter()
            .for_each(|(fd, _)| files::disown(fd)),
    }
}

/// At the end of the process, in its last call: what it holds is let go at once instead of by
/// whoever finds it dead.
pub(crate) fn at_exit() {
    let Some(fs) = mounts::attached() else { return };
    // What nobody has synced is told from what was not written back, should the power fail.
    told(fs.pool().prove());
    // Other threads run until the kernel ends them, and what they use must be there: whoever finds the
    // process dead lets it go.
    if is_alone() {
        told(fs.depart());
    }
    told(fs.pool().leave());
}

/// [`at_exit`] of a vfork child, which is alone.
pub(crate) fn at_exit_of_vfork_child() {
    if let Some(fs) = mounts::attached() {
        told(fs.pool().prove());
        told(fs.depart());
    }
}

/// Whether the calling thread is the only one of the process.
fn is_alone() -> bool {
    let mut stat = abi::Stat::default();
    let path = kernel::addr(c"/proc/self/task".to_bytes_with_nul());
    let asked = call!(
        nr::NEWFSTATAT,
        kernel::abi_cwd(),
        path,
        addr_mut(&mut stat),
        0
    );
    // A directory's links: itself, its name, and one for each thread.
    asked.is_ok() && stat.nlink == 3
}

/// Before an exec: identities into the kernel, holds into the hands of the next image.
pub(crate) fn before_exec() {
    if let Some(fs) = mounts::attached() {
        if !intercept::in_vfork_child() {
            files::publish_all(true);
            told(fs.pool().prove_overwritten());
        }
        told(fs.exec_prepare(&files::kept_by_exec(fs)));
        told(if is_alone() {
            fs.exec_leave()
        } else {
            fs.pool().leave()
        });
    }
}

/// A descriptor has arrived from another process.
pub(crate) fn adopt(fd: i32, came: Came) {
    if placeholder::identify(fd).is_none() {
        return;
    }
    let Ok(fs) = mounts::fs() else { return };
    // A description that is gone leaves a descriptor on which every call fails.
    if let Some(ofd) = placeholder::identify(fd) {
        told(match intercept::in_vfork_child() {
            true => fs.ofd_hold(ofd, came == Came::Received),
            false => files::adopt(fd, ofd, came),
        });
    }
}

/// Descriptors in the ancillary data of a message.
fn rights(header: &MsgHdr) -> Vec<i32> {
    let mut found = Vec::new();
    let len = header.controllen.min(CONTROL_MAX);
    let mut at = 0;
    while header.control != 0 && at + size_of::<CmsgHdr>() <= len {
        let Ok(cmsg) = user::get::<CmsgHdr>(header.control + at) else {
            break;
        };
        if cmsg.len < size_of::<CmsgHdr>() || cmsg.len > len - at {
            break;
        }
        if cmsg.level == SOL_SOCKET && cmsg.kind == SCM_RIGHTS {
            let count = (cmsg.len - size_of::<CmsgHdr>()) / size_of::<i32>();
            let first = header.control + at + size_of::<CmsgHdr>();
            found.extend((0..count).filter_map(|i| user::get::<i32>(first + 4 * i).ok()));
        }
        at += cmsg.len.next_multiple_of(8);
    }
    found
}

/// Before a message is sent: descriptors of ours in it get their identity. True if there are any.
pub(crate) fn sending(message: usize) -> bool {
    let mut any = false;
    for_each_sent(message, |fd, held| {
        any = true;
        files::publish_one(fd);
        told(held.fs.ofd_sent(held.ofd, fd));
    });
    any
}

/// The message was not sent.
pub(crate) fn not_sent(message: usize) {
    for_each_sent(message, |_, held| told(held.fs.ofd_unsent(held.ofd)));
}

fn for_each_sent(message: usize, mut each: impl FnMut(i32, &files::Held)) {
    let Ok(header) = user::get::<MsgHdr>(message) else {
        return;
    };
    if header.control == 0 || header.controllen < size_of::<CmsgHdr>() {
        return;
    }
    for fd in rights(&header) {
        if let Ok(Some(held)) = files::get(fd) {
            each(fd, &held);
        }
    }
}

/// How what came in a message came, given the flags of the call.
fn came(flags: usize) -> Came {
    const MSG_PEEK: usize = 2;
    if flags & MSG_PEEK != 0 {
        Came::Copied
    } else {
        Came::Received
    }
}

/// After `recvmsg(2)` with these flags of the message with its header at `message`.
pub(crate) fn received(message: usize, flags: usize) {
    if let Ok(header) = user::get::<MsgHdr>(message) {
        rights(&header)
            .into_iter()
            .for_each(|fd| adopt(fd, came(flags)));
    }
}

/// Bytes of `struct mmsghdr`.
pub(crate) const MMSGHDR_BYTES: usize = size_of::<MsgHdr>() + 8;

/// After `recvmmsg(2)`: `result` messages were received.
pub(crate) fn received_many(c: &Call, result: isize) {
    for index in 0..usize::try_from(result).unwrap_or(0) {
        if let Ok(header) = user::get::<MsgHdr>(c.args[1] + index * MMSGHDR_BYTES) {
            rights(&header)
                .into_iter()
                .for_each(|fd| adopt(fd, came(c.args[3])));
        }
    }
}
