//! System-call interception inside an unmodified program.
//!
//! [`start`] rewrites the `syscall` instructions of the loaded libc and dynamic linker. From then on
//! every call of the chosen [`classes`] reaches one function, [`Config::dispatch`], at the kernel's
//! own interface: number and six arguments in, value or `-errno` out.
//!
//! # What the dispatcher may count on
//! * It runs on a stack of its own (256 KiB per thread, whatever the program's stack is), in a
//!   thread whose asynchronous signals are deferred until the call is over.
//! * System calls it makes with [`sys::syscall!`] go to the kernel and nowhere else. Calls made by
//!   libc code under it pass natively as well (it should not call libc at all).
//! * A panic becomes `EIO` for the program ([`guard::panic_count`]), after [`Config::after_panic`]; a
//!   process or thread that ends does so all the same.
//! * [`Outcome::Pass`] runs the call after the hook has ended, on the program's stack: blocking,
//!   restarting and cancellation are as without interception.
//! * All registers but the result are the program's afterwards.
//! * A memory fault in it, outside [`sys::uaccess`], is treated like a panic
//!   ([`guard::fault_count`]), except that nothing is unwound.
//! * `rt_sigaction`, `rt_sigprocmask` and `sigaltstack` do not arrive: this crate serves them.
//!
//! * `fork`, `vfork`, `clone` and `clone3` do not arrive either: they are announced, before and
//!   after, by the functions of [`Config`].
//!
//! # What it must do
//! * Leave `execve` to [`Outcome::Pass`] or [`Outcome::PassThen`] wherever it can: signals that
//!   were deferred when an exec is made inside a hook stay blocked in the new image.
//! * Touch program memory through [`sys::uaccess`] only.
//! * Keep [`fdtab`] true: [`Class::Fd0`] calls on numbers without an entry never arrive.
//! * In a vfork child ([`guard::in_vfork_child`]) change nothing that belongs to the process; the
//!   table is the parent's and changes to it are dropped, and every descriptor call arrives there.
//!
//! # How a call gets here
//! ```text
//!   libc text (cache file)      stubs (cache file)             this library
//!   ... jmp stub ------------>  class test: filter byte   -->  gate: registers, hook stack
//!   cmp rax, -4096              foreign: syscall               entry -> dispatch
//!        ^----------------------moved neighbours <------------ result, signals flushed
//! ```
//! `arch` finds and rewrites the sites and holds the gate, `image` and `cache` keep the result,
//! `install` maps it. System calls of other code, if a search ([`Mode::Auto`]) or the user
//! ([`Mode::RewriteSud`]) says there are any, trap by Syscall User Dispatch and take the same gate.
//! Calls of code loaded later by `dlopen` are seen in the second case only.
//!
//! [`Class::Fd0`]: classes::Class::Fd0

mod alloc;
mod arch;
mod cache;
mod call;
pub mod classes;
mod clone;
mod entry;
mod environ;
pub mod fdtab;
pub mod guard;
mod hookstack;
mod image;
mod install;
mod modules;
mod os;
pub mod paths;
mod raw;
mod report;
mod signals;
mod sud;
mod tls;

pub use alloc::HostAlloc;
pub use arch::nr;
pub use cache::Source;
pub use call::{Call, Outcome};
pub use clone::CloneKind;
pub use environ::Startup;
pub use guard::in_vfork_child;
pub use report::{ModuleReport, Report};
pub use tls::{WORD_COUNT, words};

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering};
use sys::Errno;

/// What the user of this crate provides. Every function runs on the hook stack.
pub struct Config {
    /// Serves or passes on one call.
    pub dispatch: fn(&mut Call) -> Outcome,
    /// Second round after [`Outcome::PassThen`]: call, the kernel's result, token; returns the
    /// final result.
    pub after: fn(&Call, isize, usize) -> isize,
    /// After a panic in `dispatch` or `after`, before the program gets `EIO`.
    pub after_panic: fn(&Call),
    /// In the parent, before a process or thread is made.
    pub before_clone: fn(CloneKind),
    /// In the parent, after it, with the kernel's result.
    pub after_clone: fn(CloneKind, isize),
    /// In the child of a fork, before the program goes on.
    pub child_after_fork: fn(),
    /// In a child that shares the memory, before the program goes on; perhaps twice, and perhaps in
    /// a signal handler on the program's stack.
    pub child_of_vfork: fn(),
    /// In its parent, once the child has exec'd or died, wherever that was; called as
    /// `child_of_vfork` is, before [`Config::after_clone`].
    pub vfork_is_over: fn(),
    /// Which calls are dispatched, usually [`classes::FILE_CALLS`].
    pub classes: classes::ClassTable,
    /// Directory of the cache files, whose parent must exist; `None` is `daos-UID/cache` in `/var/tmp`, `/tmp` or
    /// `/dev/shm`.
    pub cache_dir: Option<&'static CStr>,
}

/// How calls are intercepted: the value of `D_IL_MODE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The best way there is on this machine.
    Auto,
    /// Rewriting only.
    Rewrite,
    /// Rewriting, and Syscall User Dispatch for whatever else makes system calls.
    RewriteSud,
    /// Not at all.
    Off,
}

impl Mode {
    /// Reads `D_IL_MODE`; absent is [`Mode::Auto`], `Err` gives back a value that is none.
    pub fn from_environment(startup: &Startup) -> Result<Mode, &'static CStr> {
        let Some(value) = startup.get(b"D_IL_MODE") else {
            return Ok(Mode::Auto);
        };
        match value.to_bytes() {
            b"" | b"auto" => Ok(Mode::Auto),
            b"rewrite" => Ok(Mode::Rewrite),
            b"rewrite+sud" => Ok(Mode::RewriteSud),
            b"off" => Ok(Mode::Off),
            _ => Err(value),
        }
    }
}

static CONFIG: AtomicPtr<Config> = AtomicPtr::new(core::ptr::null_mut());

pub(crate) fn config() -> Option<&'static Config> {
    // SAFETY: the pointer is null or that of a `&'static Config`.
    unsafe { CONFIG.load(Ordering::Acquire).as_ref() }
}

pub(crate) use install::set_filter;

/// Dispatch `mmap`, `munmap`, `mremap`, `msync` and `madvise` of anonymous memory and
/// foreign files too? Off at start; on while any mapping is ours.
pub fn set_maps_active(on: bool) {
    install::set_maps_active(on);
}

/// Begins interception in [`Mode::Auto`]; see [`start_in`].
///
/// # Errors
/// As for [`start_in`].
///
/// # Safety
/// As for [`start_in`].
pub unsafe fn start(config: &'static Config) -> Result<Report, Errno> {
    // SAFETY: passed on.
    unsafe { start_in(config, Mode::Auto) }
}

/// Begins interception. To be called once, from an `.init_array` function of the preloaded library.
///
/// # Errors
/// `EBUSY` on a second call, `ENOENT` if no libc was found in the process, the reason of the first
/// object if none could be rewritten. Objects that could not be rewritten are in the [`Report`];
/// the program then runs on with what is left.
///
/// # Safety
/// No other thread may run, and nobody may load or unload objects meanwhile. `config`'s functions
/// must be safe to call from any thread, also in the child of a fork or vfork, at any system call.
pub unsafe fn start_in(config: &'static Config, mode: Mode) -> Result<Report, Errno> {
    let mut report = Report::default();
    if mode == Mode::Off {
        return Ok(report);
    }
    let fresh = core::ptr::from_ref(config).cast_mut();
    let null = core::ptr::null_mut();
    if CONFIG
        .compare_exchange(null, fresh, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return Err(Errno::EBUSY);
    }
    arch::prepare();
    std::panic::set_hook(Box::new(|_| ()));
    signals::start();
    let dir = cache::directory(config.cache_dir).ok();
    let wants_sud = match mode {
        Mode::RewriteSud => true,
        // SAFETY: passed on.
        Mode::Auto => unsafe { raw::is_present(dir.as_ref(), &config.classes) },
        Mode::Rewrite | Mode::Off => false,
    };
    let plan = image::Plan::new(&config.classes, wants_sud && sud::is_supported());
    // SAFETY: passed on.
    unsafe { install::all(dir.as_ref(), &plan, &mut report) };
    if !report.modules().any(|module| module.result.is_ok()) {
        return Err(report
            .modules()
            .find_map(|module| module.result.err())
            .unwrap_or(Errno::ENOENT));
    }
    if plan.every {
        report.set_dispatch(sud::start());
    }
    Ok(report)
}
