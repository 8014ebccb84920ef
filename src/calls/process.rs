//! Processes: exec, exit, and calls that change what a path or a descriptor number means.

use crate::abi::nr;
use crate::dispatch::{After, Served, Stop};
use crate::{calls, cwd, exec, handover, limits, report};
use intercept::Call;

pub(crate) fn execve(c: &mut Call) -> Served {
    exec::execve(c)
}

pub(crate) fn execveat(c: &mut Call) -> Served {
    exec::execveat(c)
}

/// `exit_group(2)`: shared mappings are written back, the summary is printed. Nothing depends on
/// it: a killed process is settled by others.
pub(crate) fn exit_group(_c: &mut Call) -> Served {
    if intercept::in_vfork_child() {
        handover::at_exit_of_vfork_child();
    } else {
        calls::map::write_back_all();
        report::print();
        handover::at_exit();
    }
    Err(Stop::Pass)
}

/// `setrlimit(2)`, `prlimit64(2)`: looked at again afterwards.
pub(crate) fn limits_change(c: &mut Call) -> Served {
    let (resource, new) = if c.nr == nr::SETRLIMIT {
        (c.args[0], c.args[1])
    } else {
        (c.args[1], c.args[2])
    };
    if new != 0 && limits::concerns(resource as u32) {
        Err(Stop::PassThen(After::Limits))
    } else {
        Err(Stop::Pass)
    }
}

/// `unshare(2)`: with `CLONE_FS` the thread's working directory is its own from now on.
pub(crate) fn unshare(c: &mut Call) -> Served {
    const CLONE_FS: usize = 0x200;
    const CLONE_NEWNS: usize = 0x2_0000;
    if c.args[0] & (CLONE_FS | CLONE_NEWNS) != 0 {
        cwd::per_thread();
    }
    Err(Stop::Pass)
}

/// `setns(2)`.
pub(crate) fn setns(_c: &mut Call) -> Served {
    cwd::per_thread();
    Err(Stop::Pass)
}

/// `chroot(2)`: into a directory of the mount there is no way for the kernel.
pub(crate) fn chroot(c: &mut Call) -> Served {
    use crate::route::{self, Arg};
    route::at(c, Arg::path(0), route::follow(true), &mut |spot| {
        spot.found()?;
        Err(sys::Errno::EPERM.into())
    })
}
