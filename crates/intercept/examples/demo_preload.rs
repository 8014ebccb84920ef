//! A toy `LD_PRELOAD` library: paths below `/pfs-demo` are served from the directory named by
//! `PFS_DEMO_DIR`, so that programs can be compared with and without interception. Descriptors of
//! demo files carry a mark in the descriptor table, and reads from them go through the dispatcher.

use intercept::{
    Call, CloneKind, Config, Mode, Outcome, Startup, classes, fdtab, guard, nr, paths,
};
use std::ffi::c_char;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use sys::{Errno, syscall, uaccess};

const PREFIX: &[u8] = b"/pfs-demo";
const PATH_MAX: usize = 4096;

static BACKING: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());
static BACKING_LEN: AtomicUsize = AtomicUsize::new(0);
/// Dispatched calls and forks of this process, appended at exit to the file `PFS_DEMO_REPORT`.
static CALLS: AtomicU64 = AtomicU64::new(0);
static FORKS: AtomicU64 = AtomicU64::new(0);
static REPORT_PATH: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());
/// With `PFS_DEMO_NULL`, reads of demo files return 0 at once: the cost of a hook alone.
static NULL: AtomicU64 = AtomicU64::new(0);

fn backing() -> &'static [u8] {
    let at = BACKING.load(Ordering::Acquire);
    if at.is_null() {
        return &[];
    }
    // SAFETY: set once, from an environment string that lives as long as the process.
    unsafe { std::slice::from_raw_parts(at.cast(), BACKING_LEN.load(Ordering::Acquire)) }
}

/// Translates a demo path into `buf`; `Ok(None)` if it is somebody else's.
fn translate(path: usize, buf: &mut [u8; PATH_MAX]) -> Result<Option<usize>, Errno> {
    let mut raw = [0u8; 16];
    let head = &mut raw[..PREFIX.len() + 1];
    for (i, byte) in head.iter_mut().enumerate() {
        // A short path may end before unmapped memory, so byte by byte.
        match uaccess::load::<u8>(path + i) {
            Ok(value) => *byte = value,
            Err(_) => return Ok(None),
        }
        if i < PREFIX.len() && *byte != PREFIX[i] {
            return Ok(None);
        }
    }
    if !matches!(raw[PREFIX.len()], 0 | b'/') {
        return Ok(None);
    }
    let base = backing();
    buf[..base.len()].copy_from_slice(base);
    let rest = uaccess::read_cstr(path + PREFIX.len(), &mut buf[base.len()..])?;
    if rest == 0 {
        buf[base.len()] = 0;
    }
    Ok(Some(base.len() + rest))
}

fn result(done: sys::Result<usize>) -> Outcome {
    Outcome::Done(done.map_or_else(Errno::as_ret, |value| value as isize))
}

/// Runs the call here, with the path argument at `at` replaced if it is a demo path.
fn with_path(call: &mut Call, at: usize) -> Outcome {
    let mut buf = [0u8; PATH_MAX];
    match translate(call.args[at], &mut buf) {
        // The demo follows no links: the kernel's word stands.
        Ok(None) if paths::kernel_refused() => Outcome::Done(Errno::ENOENT.as_ret()),
        Ok(None) => Outcome::Pass,
        Err(errno) => Outcome::Done(errno.as_ret()),
        Ok(Some(_)) => {
            if buf[backing().len()..].starts_with(b"/panic\0") {
                panic!("asked for");
            }
            if buf[backing().len()..].starts_with(b"/fault\0") {
                // SAFETY: none; the fault is the point.
                unsafe { std::ptr::read_volatile(8 as *const u8) };
            }
            let mut args = call.args;
            args[at] = buf.as_ptr() as usize;
            // SAFETY: the program's own call with another path.
            let done = unsafe { sys::raw::syscall(call.nr, args) };
            let opens = matches!(call.nr, nr::OPEN | nr::OPENAT | nr::CREAT | nr::OPENAT2);
            if done >= 0 && opens {
                fdtab::set(done as usize, 1);
            }
            Outcome::Done(done)
        }
    }
}

fn dispatch(call: &mut Call) -> Outcome {
    CALLS.fetch_add(1, Ordering::Relaxed);
    if NULL.load(Ordering::Relaxed) != 0 && call.nr == nr::READ {
        return Outcome::Done(0);
    }
    let class = classes::FILE_CALLS[call.nr & 511];
    match call.nr {
        nr::READ if fdtab::get(call.args[0]) != 0 => {
            // Through a buffer of ours, to exercise the guarded copy.
            let mut buf = [0u8; 4096];
            let want = call.args[2].min(buf.len());
            // SAFETY: reads into our own buffer.
            let got = unsafe { syscall!(nr::READ, call.args[0], buf.as_mut_ptr(), want) };
            result(got.and_then(|n| {
                // SAFETY: the program named this buffer to be overwritten.
                unsafe { uaccess::copy_out(call.args[1], &buf[..n])? };
                Ok(n)
            }))
        }
        nr::CLOSE => {
            fdtab::clear(call.args[0]);
            Outcome::Pass
        }
        nr::DUP => Outcome::PassThen(fdtab::get(call.args[0]) as usize),
        nr::DUP2 | nr::DUP3 => Outcome::PassThen(fdtab::get(call.args[0]) as usize),
        nr::FCNTL if matches!(call.args[1], 0 | 1030) => {
            Outcome::PassThen(fdtab::get(call.args[0]) as usize)
        }
        nr::CLOSE_RANGE => {
            if call.args[2] & 4 == 0 {
                let (first, last) = (call.args[0] as u32 as usize, call.args[1] as u32 as usize);
                fdtab::for_each(first, last, |fd, _| {
                    fdtab::clear(fd);
                });
            }
            Outcome::Pass
        }
        nr::EXIT_GROUP if call.args[0] == 77 => panic!("asked for"),
        nr::EXIT_GROUP if call.args[0] == 78 => {
            // SAFETY: none; the fault is the point.
            unsafe { std::ptr::read_volatile(8 as *const u8) };
            Outcome::Pass
        }
        nr::EXIT_GROUP => {
            report();
            Outcome::Pass
        }
        _ if class == classes::Class::Path0 => with_path(call, 0),
        _ if class == classes::Class::PathAt => with_path(call, 1),
        nr::EXECVE => with_path(call, 0),
        _ => Outcome::Pass,
    }
}

fn after(call: &Call, result: isize, token: usize) -> isize {
    if result >= 0 && !guard::in_vfork_child() {
        let fd = if call.nr == nr::DUP2 || call.nr == nr::DUP3 {
            call.args[1]
        } else {
            result as usize
        };
        fdtab::set(fd, token as u32);
    }
    result
}

fn report() {
    let text = format!(
        "demo: {} calls, {} forks, {} panics\n",
        CALLS.load(Ordering::Relaxed),
        FORKS.load(Ordering::Relaxed),
        guard::panic_count()
    );
    let path = REPORT_PATH.load(Ordering::Acquire);
    if path.is_null() {
        return;
    }
    // SAFETY: path and text are valid; flags are O_WRONLY | O_CREAT | O_APPEND.
    unsafe {
        if let Ok(fd) = syscall!(nr::OPENAT, -100isize, path, 0o2101, 0o600) {
            let written = syscall!(nr::WRITE, fd, text.as_ptr(), text.len());
            assert!(written.is_ok());
            let closed = syscall!(nr::CLOSE, fd);
            assert!(closed.is_ok());
        }
    }
}

#[global_allocator]
static ALLOC: intercept::HostAlloc = intercept::HostAlloc;

static FILTER: paths::Filter = paths::Filter::new();

const CONFIG: Config = Config {
    dispatch,
    after,
    after_panic: |_| (),
    before_clone: |kind| {
        if kind == CloneKind::Fork {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
    },
    after_clone: |_, _| (),
    child_after_fork: || CALLS.store(0, Ordering::Relaxed),
    child_of_vfork: || (),
    vfork_is_over: || (),
    classes: classes::FILE_CALLS,
    cache_dir: None,
};

extern "C" fn init(argc: i32, argv: *const *const c_char, envp: *const *const c_char) {
    // SAFETY: these are the arguments of an .init_array function.
    let startup = unsafe { Startup::new(argc, argv, envp) };
    let mode = Mode::from_environment(&startup).unwrap_or(Mode::Auto);
    if mode == Mode::Off {
        return;
    }
    if let Some(dir) = startup.get(b"PFS_DEMO_DIR") {
        BACKING_LEN.store(dir.to_bytes().len(), Ordering::Release);
        BACKING.store(dir.as_ptr().cast_mut(), Ordering::Release);
    }
    if let Some(path) = startup.get(b"PFS_DEMO_REPORT") {
        REPORT_PATH.store(path.as_ptr().cast_mut(), Ordering::Release);
    }
    NULL.store(
        u64::from(startup.get(b"PFS_DEMO_NULL").is_some()),
        Ordering::Relaxed,
    );
    if startup.get(b"PFS_DEMO_FILTER").is_some() && FILTER.add(PREFIX) {
        paths::install(&FILTER, true);
    }
    let config = Box::leak(Box::new(CONFIG));
    config.cache_dir = startup.get(b"PFS_DEMO_CACHE");
    // SAFETY: constructors run before the program has threads.
    let started = unsafe { intercept::start_in(config, mode) };
    if startup.get(b"PFS_DEMO_VERBOSE").is_some() {
        let text = format!("{started:?}\n");
        // SAFETY: the text is valid for its length.
        let written = unsafe { syscall!(nr::WRITE, 2, text.as_ptr(), text.len()) };
        assert!(written.is_ok());
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn(i32, *const *const c_char, *const *const c_char) = init;
