//! Start-up: configuration, inherited descriptors, the front end.
//!
//! Runs once from `.init_array`, before `main` and before other threads. Without a mount, or for a
//! program on the bypass list, it returns at once and the program runs as if without us.

use crate::config::{self, Environment, Wanted};
use crate::say::{self, Once};
use crate::{calls, cred, cwd, dispatch, exec, files, handover, libraries, limits, mounts, report};
use core::ffi::{c_char, c_int};
use intercept::paths::{self, Filter};
use intercept::{Call, CloneKind, Config, Mode, Startup};
use sys::own_fd;

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = init;

static CONFIG: Config = Config {
    dispatch: dispatch::dispatch,
    after: dispatch::after,
    after_panic,
    before_clone: handover::before_clone,
    after_clone: handover::after_clone,
    child_after_fork: handover::child_after_fork,
    child_of_vfork: dfs::vfork::begin,
    vfork_is_over: dfs::vfork::end,
    classes: dispatch::CLASSES,
    cache_dir: None,
};

fn after_panic(call: &Call) {
    say::once(
        Once::Internal,
        format_args!(
            "internal error in system call {}; it returned EIO (please report)",
            call.nr
        ),
    );
}

extern "C" fn init(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    // SAFETY: the dynamic linker passes the program's own lists, which stay for its life.
    let startup = unsafe { Startup::new(argc, argv, envp) };
    let mut environment = Environment::default();
    for line in startup.variables() {
        environment.take(line.to_bytes());
    }
    if let Some(place) = environment.libraries {
        libraries::arrive(place, envp);
    }
    if environment.left.is_some() {
        exec::forget_left(envp);
    }
    let name = startup
        .arguments()
        .next()
        .map_or(b"".as_slice(), |arg| arg.to_bytes());
    if config::bypassed(&environment, name) {
        return;
    }
    let wanted = match config::wanted(&environment) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return,
        Err(complaint) => return complain(complaint),
    };
    match Mode::from_environment(&startup) {
        Ok(Mode::Off) => {}
        Ok(mode) => begin(&startup, &environment, wanted, mode),
        Err(_) => complain("D_IL_MODE must be auto, rewrite, rewrite+sud or off"),
    }
}

fn complain(text: &'static str) {
    say::once(
        Once::Config,
        format_args!("{text}; running without the mount"),
    );
}

static FILTER: Filter = Filter::new();

/// Lets the front end pass paths on that cannot be ours. What the kernel has at the mount point
/// could be reached by paths that only the dispatcher understands, so then all paths come here.
fn filter_paths() {
    let Some(mount) = mounts::path() else { return };
    let special = [
        b"/proc".as_slice(),
        b"/dev/fd",
        b"/dev/stdin",
        b"/dev/stdout",
        b"/dev/stderr",
    ];
    if !mounts::shadows() && FILTER.add(mount) && special.iter().all(|path| FILTER.add(path)) {
        paths::install(&FILTER, true);
        cwd::filter();
    }
}

fn begin(startup: &Startup, environment: &Environment, wanted: Wanted, mode: Mode) {
    if !mounts::configure(wanted, environment.root) {
        return;
    }
    if environment
        .io_uring
        .is_some_and(|v| v != b"0" && !v.is_empty())
    {
        calls::refuse::allow_rings();
    }
    cred::learn_umask();
    limits::learn();
    own_fd::watch(files::watch_own);
    if config::report_wanted(environment) {
        report::enable();
        say::keep_stderr();
    }
    exec::remember(
        startup.variables().map(|line| line.to_bytes()),
        environment.exe,
    );
    handover::find_inherited();
    filter_paths();
    // SAFETY: a constructor of a preloaded library runs before other threads exist and under the
    // dynamic linker's lock; the configured functions keep to the contexts they name.
    match unsafe { intercept::start_in(&CONFIG, mode) } {
        Ok(_) if environment.left.is_some() => handover::let_go_of_what_exec_closed(),
        Ok(_) => {}
        Err(errno) => say::once(
            Once::FrontEnd,
            format_args!("cannot intercept this program ({errno}); running without the mount"),
        ),
    }
}

const _: fn(CloneKind) = handover::before_clone;
