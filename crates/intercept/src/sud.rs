//! Syscall User Dispatch: the second front end, for `syscall` instructions that were not rewritten.
//!
//! While it is armed the kernel turns every system call of a thread, unless made from the gate or
//! while the thread's selector byte is 0, into a SIGSYS. The handler only changes where the
//! thread goes on: in the gate, with the registers of the call. All of libc's calls are rewritten
//! then, so that only foreign code pays for the signal. Threads and children are armed one by one;
//! those made by foreign code with a stack of their own are not (their thread block may not be
//! libc's).

use crate::arch::context::Context;
use crate::arch::{self, Trapped};
use crate::classes::{CLASS_COUNT, Class};
use crate::{nr, signals, tls};
use core::sync::atomic::{AtomicBool, Ordering};
use sys::{Result, syscall};

const PR_SET_SYSCALL_USER_DISPATCH: usize = 59;
const PR_SYS_DISPATCH_OFF: usize = 0;
const PR_SYS_DISPATCH_ON: usize = 1;
/// `si_code` of a dispatched call.
const SYS_USER_DISPATCH: i32 = 2;
const ALLOW: u64 = 0;
const BLOCK: u64 = 1;
const CLONE_VM: usize = 0x100;
const CLONE_VFORK: usize = 0x4000;

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Does the kernel have it? (Linux 5.11 and later.)
pub(crate) fn is_supported() -> bool {
    // SAFETY: switching off what is off has no effect.
    let asked = unsafe {
        syscall!(
            nr::PRCTL,
            PR_SET_SYSCALL_USER_DISPATCH,
            PR_SYS_DISPATCH_OFF,
            0,
            0,
            0
        )
    };
    asked.is_ok()
}

pub(crate) fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// Takes over SIGSYS and arms the calling thread. All of libc's calls must be rewritten.
///
/// # Errors
/// `EINVAL` if the kernel has no such thing.
pub(crate) fn start() -> Result<()> {
    ACTIVE.store(true, Ordering::Release);
    let armed = signals::take_sigsys().and_then(|()| arm_thread(true));
    if armed.is_err() {
        ACTIVE.store(false, Ordering::Release);
    }
    armed
}

/// Arms a new thread or the child of a fork.
pub(crate) fn arm() {
    if is_active() {
        let armed = arm_thread(false);
        debug_assert!(armed.is_ok());
    }
}

/// Within a hook the selector stays open until its end.
fn arm_thread(outside: bool) -> Result<()> {
    let selector = &tls::block().selector;
    let (start, len) = arch::allowed_range();
    selector.store(ALLOW, Ordering::Relaxed);
    // SAFETY: the selector lives as long as the thread.
    unsafe {
        let (option, on) = (PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON);
        syscall!(nr::PRCTL, option, on, start, len, selector.as_ptr())?;
    }
    if outside {
        selector.store(BLOCK, Ordering::Relaxed);
    }
    Ok(())
}

/// Runs `body`, which makes system calls of our own, in a signal handler outside any hook.
pub(crate) fn allowed<R>(body: impl FnOnce() -> R) -> R {
    let selector = &tls::block().selector;
    let former = selector.swap(ALLOW, Ordering::Relaxed);
    let done = body();
    selector.store(former, Ordering::Relaxed);
    done
}

/// Runs `body`, a handler of the program, whose calls are to be seen even if it interrupted the end
/// of a hook. It may be left by `longjmp`.
pub(crate) fn program(body: impl FnOnce()) {
    let selector = &tls::block().selector;
    let former = selector.swap(BLOCK, Ordering::Relaxed);
    body();
    selector.store(former, Ordering::Relaxed);
}

/// In the handler of SIGSYS: sends a dispatched call through the gate. False if the signal is
/// another kind of SIGSYS.
///
/// # Safety
/// The arguments are those of the running handler.
pub(crate) unsafe fn redirect(info: *mut u8, context: *mut u8) -> bool {
    // SAFETY: the kernel passes a siginfo, whose third word is the code.
    if !is_active() || unsafe { info.add(8).cast::<i32>().read() } != SYS_USER_DISPATCH {
        return false;
    }
    // SAFETY: passed on.
    let context = unsafe { Context::new(context) };
    let call = context.call();
    let classes = crate::config().map(|config| &config.classes);
    let class = match classes {
        Some(classes) if call.nr < CLASS_COUNT => classes[call.nr],
        _ => Class::Native,
    };
    // SAFETY: the thread goes on in the gate, which returns to where it was.
    unsafe {
        match class {
            Class::Sigreturn => context.go_on_at(arch::restorer(), context.stack_pointer()),
            Class::Native => context.call_in_gate(Trapped::native()),
            Class::Clone => redirect_clone(&context, &call),
            _ => context.call_in_gate(Trapped::hook()),
        }
    }
    true
}

/// # Safety
/// `context` is that of the running handler.
unsafe fn redirect_clone(context: &Context, call: &crate::Call) {
    // SAFETY: passed on. A stack the program names for its child is the program's to write to.
    unsafe {
        match call.nr {
            nr::FORK => context.call_in_gate(Trapped::fork()),
            // A vfork child would return over the gate's words on the stack it shares.
            nr::VFORK => {
                context.set_number(nr::FORK);
                context.call_in_gate(Trapped::fork());
            }
            nr::CLONE if call.args[1] == 0 => {
                context.set_first_argument(call.args[0] & !(CLONE_VM | CLONE_VFORK));
                context.call_in_gate(Trapped::fork());
            }
            nr::CLONE => {
                let stack = call.args[1] - 8;
                let back = context.instruction_pointer();
                if sys::uaccess::store(stack, back).is_ok() {
                    context.set_second_argument(stack);
                    context.call_in_gate(Trapped::thread());
                } else {
                    context.call_in_gate(Trapped::native());
                }
            }
            // The stack is in a structure of the program's, which must not be changed: without
            // help from here, so ENOSYS, after which programs use clone.
            _ => context.set_result(sys::Errno::ENOSYS.as_ret()),
        }
    }
}
