//! Where the gate enters Rust.

use crate::arch::frame::*;
use crate::{Call, Outcome, guard, nr, signals, tls};
use core::sync::atomic::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use sys::Errno;

/// Handles one entry; returns an `ACTION_*`. Runs on the hook stack with depth 1.
pub(crate) extern "sysv64" fn enter(frame: *mut Frame) -> usize {
    // SAFETY: the gate passes the frame it has just built, which lies above this stack frame.
    let frame = unsafe { &mut *frame };
    frame.alternate = signals::borrow_alternate_stack(frame);
    let action = match catch_unwind(AssertUnwindSafe(|| handle(frame))) {
        Ok(action) => action,
        Err(payload) => {
            // Dropping the payload could panic again.
            core::mem::forget(payload);
            guard::count_panic();
            give_up(frame)
        }
    };
    leave(frame);
    action
}

fn leave(frame: &Frame) {
    tls::block().refused.store(0, Ordering::Relaxed);
    if frame.alternate[2] != 0 {
        signals::return_alternate_stack(&frame.alternate);
    }
}

/// Continues a hook whose dispatcher faulted. Runs on the hook stack with depth 1.
pub(crate) extern "sysv64" fn abandoned(frame: *mut Frame) -> usize {
    // SAFETY: the gate passes the frame at the top of the hook stack.
    let frame = unsafe { &mut *frame };
    guard::count_fault();
    let action = give_up(frame);
    leave(frame);
    action
}

fn give_up(frame: &mut Frame) -> usize {
    if let Some(config) = crate::config() {
        let call = Call {
            nr: frame.nr,
            args: frame.args,
        };
        if let Err(payload) = catch_unwind(|| (config.after_panic)(&call)) {
            core::mem::forget(payload);
            guard::count_panic();
        }
    }
    frame.result = match frame.kind & !KIND_ABANDONED {
        // Whoever ends does not expect to come back: libc would end the thread in place of the process,
        // and try again for ever to end a thread.
        KIND_CALL if matches!(frame.nr, nr::EXIT | nr::EXIT_GROUP) => return ACTION_PASS,
        KIND_CALL => Errno::EIO.as_ret(),
        _ => frame.nr as isize,
    };
    ACTION_DONE
}

fn handle(frame: &mut Frame) -> usize {
    let Some(config) = crate::config() else {
        return ACTION_PASS;
    };
    match frame.kind {
        KIND_CALL => {
            let mut call = Call {
                nr: frame.nr,
                args: frame.args,
            };
            if call.nr == nr::SIGALTSTACK && frame.alternate[2] != 0 {
                // On the stack it concerns: the kernel refuses that by itself.
                return ACTION_PASS;
            }
            if let Some(result) = own(&call) {
                frame.result = result;
                return ACTION_DONE;
            }
            let (action, token) = match (config.dispatch)(&mut call) {
                Outcome::Done(result) => {
                    frame.result = result;
                    return ACTION_DONE;
                }
                Outcome::Pass if call.nr == frame.nr && call.args == frame.args => {
                    return ACTION_PASS;
                }
                Outcome::Pass => (ACTION_PASS_WITH, 0),
                Outcome::PassThen(token) => (ACTION_PASS_THEN, token),
            };
            frame.new_nr = call.nr;
            frame.new_args = call.args;
            frame.token = token;
            action
        }
        KIND_AFTER => {
            // SAFETY: the gate left token and call number there, on the program's stack, which
            // nothing but this thread writes to.
            let (token, number) = unsafe {
                let at = frame.sp as *const usize;
                (*at.add(2), *at.add(3))
            };
            let call = Call {
                nr: number,
                args: frame.args,
            };
            frame.result = (config.after)(&call, frame.nr as isize, token);
            ACTION_DONE
        }
        kind => {
            if kind == KIND_CLONE_PRE {
                crate::clone::before(frame);
            } else {
                crate::clone::after(frame);
            }
            frame.result = frame.nr as isize;
            ACTION_DONE
        }
    }
}

/// Calls that this crate serves itself, because they concern its own working.
fn own(call: &Call) -> Option<isize> {
    // SAFETY: the program named the memory for the answers, and it is touched by guarded copies.
    unsafe {
        match call.nr {
            nr::RT_SIGACTION => Some(signals::hook_sigaction(call)),
            nr::RT_SIGPROCMASK => Some(signals::hook_sigprocmask(call)),
            nr::SIGALTSTACK => Some(signals::hook_sigaltstack(call)),
            _ => None,
        }
    }
}
