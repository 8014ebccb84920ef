//! Signals: deferral while a hook runs, faults in hooks, and the program's own view of both.
//!
//! Every handler the program installs is replaced by [`wrapper`]. An asynchronous signal that
//! arrives inside a hook is put back into the kernel's queue with all signals blocked; the end of
//! the hook restores the mask and it arrives again. Outside a hook the wrapper just calls the
//! program's handler. SIGSEGV and SIGBUS always have the wrapper, and are never really blocked:
//! a fault in [`sys::uaccess`] must reach it.

use crate::arch::context::Context;
use crate::arch::frame::Frame;
use crate::{Call, arch, guard, hookstack, nr, os, sud, tls};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use sys::{Errno, syscall, uaccess};

const SIGNALS: usize = 64;
const SIGILL: usize = 4;
const SIGTRAP: usize = 5;
const SIGBUS: usize = 7;
const SIGFPE: usize = 8;
const SIGKILL: usize = 9;
const SIGSEGV: usize = 11;
const SIGSTOP: usize = 19;
const SIGSYS: usize = 31;

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SA_SIGINFO: usize = 4;
const SA_RESTORER: usize = 0x0400_0000;
const SA_ONSTACK: usize = 0x0800_0000;
const SA_NODEFER: usize = 0x4000_0000;
const SA_RESETHAND: usize = 0x8000_0000;
const SIG_BLOCK: usize = 0;
const SIG_UNBLOCK: usize = 1;
const SIG_SETMASK: usize = 2;
const SET_BYTES: usize = 8;

const fn bit(signal: usize) -> u64 {
    1 << (signal - 1)
}

/// Signals that carry faults of our guarded copies.
const FAULTS: u64 = bit(SIGSEGV) | bit(SIGBUS);
/// Signals an instruction raises; they are never deferred.
const SYNCHRONOUS: u64 = FAULTS | bit(SIGILL) | bit(SIGTRAP) | bit(SIGFPE) | bit(SIGSYS);

/// Signals that always have the wrapper and are never really blocked.
fn always_ours() -> u64 {
    if sud::is_active() {
        FAULTS | bit(SIGSYS)
    } else {
        FAULTS
    }
}

/// `struct kernel_sigaction` on x86-64.
type RawAction = [usize; 4];
const HANDLER: usize = 0;
const FLAGS: usize = 1;
const RESTORER: usize = 2;
const MASK: usize = 3;

/// What the program asked for, per signal. `sequence` is odd while it is being written.
struct Action {
    sequence: AtomicU32,
    words: [AtomicUsize; 4],
}

static ACTIONS: [Action; SIGNALS + 1] = [const {
    Action {
        sequence: AtomicU32::new(0),
        words: [const { AtomicUsize::new(0) }; 4],
    }
}; SIGNALS + 1];

impl Action {
    fn read(&self) -> RawAction {
        let mut action = [0; 4];
        // A fork may have copied a half-written entry whose writer is gone: no endless loop.
        for _ in 0..1000 {
            let before = self.sequence.load(Ordering::Acquire);
            for (to, from) in action.iter_mut().zip(&self.words) {
                *to = from.load(Ordering::Acquire);
            }
            if before & 1 == 0 && self.sequence.load(Ordering::Acquire) == before {
                break;
            }
            core::hint::spin_loop();
        }
        action
    }

    fn write(&self, action: &RawAction) {
        self.sequence.fetch_or(1, Ordering::AcqRel);
        for (to, from) in self.words.iter().zip(action) {
            to.store(*from, Ordering::Release);
        }
        self.sequence.fetch_add(1, Ordering::Release);
    }
}

fn wrapper_address() -> usize {
    wrapper as *const () as usize
}

fn set_kernel_action(signal: usize, new: Option<&RawAction>) -> sys::Result<RawAction> {
    let mut old = [0; 4];
    let new = new.map_or(0, |new| new.as_ptr() as usize);
    // SAFETY: both are null or live locals of the kernel's layout.
    unsafe { syscall!(nr::RT_SIGACTION, signal, new, old.as_mut_ptr(), SET_BYTES)? };
    Ok(old)
}

/// The action the kernel gets when the program wants `wanted`.
fn kernel_action(signal: usize, wanted: &RawAction) -> RawAction {
    let fault = always_ours() & bit(signal) != 0;
    let mut action = *wanted;
    action[MASK] &= !(always_ours() as usize);
    if wanted[HANDLER] > SIG_IGN {
        action[HANDLER] = wrapper_address();
        action[FLAGS] = (wanted[FLAGS] | SA_SIGINFO) & !SA_RESETHAND;
        if fault {
            action[FLAGS] |= SA_NODEFER;
        }
    } else if fault {
        action[HANDLER] = wrapper_address();
        action[FLAGS] = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    } else {
        return action;
    }
    if signal == SIGSYS && sud::is_active() {
        // Nothing may come between the trap and the change of course; small stacks are common.
        action[FLAGS] |= SA_ONSTACK;
        action[MASK] |= DEFER_SET as usize;
    }
    // Under Syscall User Dispatch only our own restorer may make its call.
    if action[FLAGS] & SA_RESTORER == 0 || sud::is_active() {
        action[FLAGS] |= SA_RESTORER;
        action[RESTORER] = arch::restorer();
    }
    action
}

/// Takes over SIGSEGV and SIGBUS.
pub(crate) fn start() {
    for signal in [SIGSEGV, SIGBUS] {
        let Ok(old) = set_kernel_action(signal, None) else {
            continue;
        };
        if let Some(entry) = ACTIONS.get(signal) {
            entry.write(&old);
        }
        let done = set_kernel_action(signal, Some(&kernel_action(signal, &old)));
        debug_assert!(done.is_ok());
    }
    // SAFETY: unblocks two signals; the set is a live constant.
    let done = unsafe {
        syscall!(
            nr::RT_SIGPROCMASK,
            SIG_UNBLOCK,
            &raw const FAULT_SET,
            0,
            SET_BYTES
        )
    };
    debug_assert!(done.is_ok());
}

/// Takes over SIGSYS; `sud` is active already. The program has set no handlers so far, so all of
/// them will get our restorer.
pub(crate) fn take_sigsys() -> sys::Result<()> {
    let old = set_kernel_action(SIGSYS, None)?;
    if let Some(entry) = ACTIONS.get(SIGSYS) {
        entry.write(&old);
    }
    set_kernel_action(SIGSYS, Some(&kernel_action(SIGSYS, &old)))?;
    // SAFETY: unblocks a signal; the set is a live constant.
    unsafe {
        syscall!(
            nr::RT_SIGPROCMASK,
            SIG_UNBLOCK,
            &raw const SIGSYS_SET,
            0,
            SET_BYTES
        )
    }
    .map(drop)
}

static SIGSYS_SET: u64 = bit(SIGSYS);
static FAULT_SET: u64 = FAULTS;
/// Blocked while signals are deferred. The gate uses it too.
pub(crate) static DEFER_SET: u64 = !SYNCHRONOUS;

fn tell(result: Result<(), Errno>) -> isize {
    result.map_or_else(Errno::as_ret, |()| 0)
}

/// Serves `rt_sigaction` (arguments as the program passed them).
///
/// # Safety
/// The memory that argument 2 points to must be the program's to overwrite.
pub(crate) unsafe fn hook_sigaction(call: &Call) -> isize {
    let [signal, new, old, set_bytes, ..] = call.args;
    let signal = signal as u32 as usize;
    let usable = (1..=SIGNALS).contains(&signal) && signal != SIGKILL && signal != SIGSTOP;
    // A vfork child has signal actions of its own, but the table is its parent's.
    if !usable || set_bytes != SET_BYTES || guard::in_vfork_child() {
        // SAFETY: the program's own call.
        return unsafe { sys::raw::syscall(nr::RT_SIGACTION, call.args) };
    }
    // SAFETY: passed on.
    tell(unsafe { change_action(signal, new, old) })
}

/// # Safety
/// As for [`hook_sigaction`].
unsafe fn change_action(signal: usize, new: usize, old: usize) -> Result<(), Errno> {
    let entry = ACTIONS.get(signal).ok_or(Errno::EINVAL)?;
    let wanted = if new == 0 {
        None
    } else {
        Some(uaccess::load::<[usize; 4]>(new)?)
    };
    let known = entry.read();
    let former = match &wanted {
        None => set_kernel_action(signal, None)?,
        Some(wanted) => {
            entry.write(wanted);
            let done = set_kernel_action(signal, Some(&kernel_action(signal, wanted)));
            if done.is_err() {
                entry.write(&known);
            }
            done?
        }
    };
    if old != 0 {
        let shown = if former[HANDLER] == wrapper_address() {
            known
        } else {
            former
        };
        // SAFETY: the program asked for the old action there.
        unsafe { uaccess::store(old, shown)? };
    }
    Ok(())
}

/// Serves `rt_sigprocmask`: keeps SIGSEGV and SIGBUS unblocked behind the program's back, and acts
/// on the saved mask while signals are deferred.
///
/// # Safety
/// The memory that argument 2 points to must be the program's to overwrite.
pub(crate) unsafe fn hook_sigprocmask(call: &Call) -> isize {
    let [how, new, old, set_bytes, ..] = call.args;
    if set_bytes != SET_BYTES {
        return Errno::EINVAL.as_ret();
    }
    // SAFETY: passed on.
    tell(unsafe { change_mask(how as u32 as usize, new, old) })
}

fn combined(how: usize, mask: u64, set: u64) -> Option<u64> {
    match how {
        SIG_BLOCK => Some(mask | set),
        SIG_UNBLOCK => Some(mask & !set),
        SIG_SETMASK => Some(set),
        _ => None,
    }
}

/// # Safety
/// As for [`hook_sigprocmask`].
unsafe fn change_mask(how: usize, new: usize, old: usize) -> Result<(), Errno> {
    let block = tls::block();
    let hidden = block.hidden_mask.load(Ordering::Relaxed);
    let set = if new == 0 {
        None
    } else {
        Some(uaccess::load::<u64>(new)?)
    };
    let mut former = 0u64;
    if block.deferred.load(Ordering::Relaxed) != 0 {
        former = block.saved_mask.load(Ordering::Relaxed);
        if let Some(set) = set {
            let mask = combined(how, former, set & !always_ours()).ok_or(Errno::EINVAL)?;
            block.saved_mask.store(mask, Ordering::Relaxed);
        }
    } else {
        let visible = set.map(|set| set & !always_ours());
        let at = visible
            .as_ref()
            .map_or(0, |set| core::ptr::from_ref(set) as usize);
        // SAFETY: both sets are null or live locals.
        unsafe { syscall!(nr::RT_SIGPROCMASK, how, at, &raw mut former, SET_BYTES)? };
    }
    // A vfork child has a mask of its own, but this word is its parent's.
    if let Some(set) = set.filter(|_| !guard::in_vfork_child()) {
        let hidden = combined(how, hidden, set & always_ours()).ok_or(Errno::EINVAL)?;
        block.hidden_mask.store(hidden, Ordering::Relaxed);
    }
    if old != 0 {
        // SAFETY: the program asked for the old mask there.
        unsafe { uaccess::store(old, former & !always_ours() | hidden)? };
    }
    Ok(())
}

/// Ends deferral: restores the mask, upon which deferred signals arrive. Depth must be 0.
pub(crate) fn flush() {
    let block = tls::block();
    if block.deferred.swap(0, Ordering::Relaxed) != 0 {
        set_mask(block.saved_mask.load(Ordering::Relaxed));
    }
}

fn set_mask(mask: u64) {
    // SAFETY: the set is a live local.
    let done = unsafe {
        syscall!(
            nr::RT_SIGPROCMASK,
            SIG_SETMASK,
            &raw const mask,
            0,
            SET_BYTES
        )
    };
    debug_assert!(done.is_ok());
}

/// The handler the kernel calls. May be left by `longjmp` or an unwinder in the program's handler,
/// so nothing here needs a destructor.
unsafe extern "C-unwind" fn wrapper(signal: i32, info: *mut u8, context: *mut u8) {
    let number = signal as usize;
    // SAFETY: the kernel passes a siginfo, whose third word is the code.
    let from_kernel = unsafe { info.add(8).cast::<i32>().read() } > 0;
    let block = tls::block();
    let mut forks = false;
    if block.clone_mode.load(Ordering::Relaxed) != 0 {
        sud::allowed(crate::clone::settle_side);
        forks = crate::clone::is_forking();
    }
    let in_hook = block.depth.load(Ordering::Relaxed) != 0;
    if SYNCHRONOUS & bit(number) != 0 {
        let fault = FAULTS & bit(number) != 0 && from_kernel;
        // SAFETY: the context is the handler's third argument.
        if fault && unsafe { repaired(context, in_hook) } {
            return;
        }
        // SAFETY: as above.
        if number == SIGSYS && unsafe { sud::redirect(info, context) } {
            return;
        }
    } else if in_hook || forks {
        // SAFETY: as above.
        sud::allowed(|| unsafe { defer(number, info, Context::new(context)) });
        return;
    }
    // SAFETY: as above.
    unsafe { deliver(signal, info, context) }
}

/// Is the fault one of ours? Then the interrupted code goes on elsewhere when the handler returns.
///
/// # Safety
/// `context` is that of the running handler.
unsafe fn repaired(context: *mut u8, in_hook: bool) -> bool {
    // SAFETY: passed on.
    unsafe {
        uaccess::fix_up(context)
            || Context::new(context).fix_up_path()
            || in_hook && abandon(context)
    }
}

/// Puts the signal back and blocks all of them in the interrupted hook.
///
/// # Safety
/// `info` and `context` are those of the running handler.
unsafe fn defer(signal: usize, info: *mut u8, context: Context) {
    let block = tls::block();
    // Several signals that arrive at once have interrupted each other's wrappers, and the one that
    // interrupted the hook itself is the last to come here: its mask is the hook's.
    block.saved_mask.store(context.mask(), Ordering::Relaxed);
    block.deferred.store(1, Ordering::Relaxed);
    let (pid, tid) = (os::getpid(), os::gettid());
    // SAFETY: the set is a live constant, info is the kernel's; the signal is blocked from the
    // first call on, so the second cannot nest.
    unsafe {
        let set = &raw const DEFER_SET;
        let blocked = syscall!(nr::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SET_BYTES);
        debug_assert!(blocked.is_ok());
        context.set_mask(DEFER_SET);
        if syscall!(nr::RT_TGSIGQUEUEINFO, pid, tid, signal, info).is_err() {
            // No room for the details (RLIMIT_SIGPENDING): at least the signal itself.
            let sent = syscall!(nr::TGKILL, pid, tid, signal);
            debug_assert!(sent.is_ok());
        }
    }
}

/// A fault in the dispatcher itself: lets the hook end with `EIO`. False if the fault is not on
/// this thread's hook stack, or is the second in one hook.
///
/// # Safety
/// `context` is that of the running handler.
unsafe fn abandon(context: *mut u8) -> bool {
    let top = tls::block().stack_top.load(Ordering::Relaxed) as usize;
    // SAFETY: passed on.
    let context = unsafe { Context::new(context) };
    let on_hook_stack =
        top != 0 && (top - hookstack::STACK_BYTES..top).contains(&context.stack_pointer());
    if !on_hook_stack {
        return false;
    }
    let frame = top - size_of::<Frame>();
    // SAFETY: while a hook runs its frame lies at the top of the hook stack.
    let kind = unsafe { &mut (*(frame as *mut Frame)).kind };
    if *kind & arch::frame::KIND_ABANDONED != 0 {
        return false;
    }
    *kind |= arch::frame::KIND_ABANDONED;
    // SAFETY: the gate continues at the frame, whose registers it restores.
    unsafe { context.go_on_at(arch::abandon(), frame) };
    true
}

/// Calls the program's handler, or does what it asked for instead.
///
/// # Safety
/// The arguments are those of the running handler.
unsafe fn deliver(signal: i32, info: *mut u8, context: *mut u8) {
    let number = signal as usize;
    let Some(entry) = ACTIONS.get(number) else {
        return;
    };
    let action = entry.read();
    // SAFETY: the kernel passes a siginfo, whose third word is the code.
    let from_kernel = unsafe { info.add(8).cast::<i32>().read() } > 0;
    match action[HANDLER] {
        SIG_IGN if !from_kernel => {}
        SIG_DFL | SIG_IGN => sud::allowed(|| take_default(number, info, from_kernel)),
        handler => {
            if action[FLAGS] & SA_RESETHAND != 0 {
                let default = [SIG_DFL, 0, 0, 0];
                entry.write(&default);
                let action = kernel_action(number, &default);
                let done = sud::allowed(|| set_kernel_action(number, Some(&action)));
                debug_assert!(done.is_ok());
            }
            // SAFETY: the context of the running handler.
            let moved = unsafe { Context::new(context).show_original() };
            // SAFETY: the program gave this address as a handler for these arguments.
            sud::program(|| unsafe {
                let call: unsafe extern "C-unwind" fn(i32, *mut u8, *mut u8) =
                    core::mem::transmute(handler);
                call(signal, info, context);
            });
            if let Some(moved) = moved {
                // SAFETY: the same context as before.
                unsafe { Context::new(context).undo(&moved) };
            }
        }
    }
}

/// The default action of SIGSEGV and SIGBUS: the signal again, with no handler.
fn take_default(signal: usize, info: *mut u8, from_kernel: bool) {
    let done = set_kernel_action(signal, Some(&[SIG_DFL, 0, 0, 0]));
    debug_assert!(done.is_ok());
    if !from_kernel {
        // A fault recurs by itself when the handler returns; a sent signal does not.
        // SAFETY: info is the kernel's own.
        let sent = unsafe {
            syscall!(
                nr::RT_TGSIGQUEUEINFO,
                os::getpid(),
                os::gettid(),
                signal,
                info
            )
        };
        debug_assert!(sent.is_ok());
    }
}

/// Serves `sigaltstack`, remembering where the thread's alternate stack is.
///
/// # Safety
/// The memory that argument 1 points to must be the program's to overwrite.
pub(crate) unsafe fn hook_sigaltstack(call: &Call) -> isize {
    // The check whether the caller is on the stack it changes is lost: the hook has its own.
    // SAFETY: the program's own call.
    let done = unsafe { sys::raw::syscall(nr::SIGALTSTACK, call.args) };
    if done == 0
        && call.args[0] != 0
        && !guard::in_vfork_child()
        && let Ok([start, flags, len]) = uaccess::load::<[usize; 3]>(call.args[0])
    {
        let off = flags & SS_DISABLE != 0;
        let block = tls::block();
        block.alternate_start.store(start as u64, Ordering::Relaxed);
        block
            .alternate_len
            .store(if off { 0 } else { len as u64 }, Ordering::Relaxed);
    }
    done
}

/// `stack_t`: start, flags, length.
type AlternateStack = [usize; 3];
const SS_DISABLE: usize = 2;

/// If the hook was entered on the thread's alternate stack: takes that away from the kernel, which
/// would put the frame of a fault in the hook on its top, over the program's. The gate has blocked
/// all other signals. To be given to [`return_alternate_stack`] at the end of the hook, unless the
/// length is 0.
#[inline]
pub(crate) fn borrow_alternate_stack(frame: &Frame) -> AlternateStack {
    let block = tls::block();
    let start = block.alternate_start.load(Ordering::Relaxed);
    let len = block.alternate_len.load(Ordering::Relaxed);
    if (frame.sp as u64).wrapping_sub(start) >= len {
        return [0; 3];
    }
    let (off, mut former): (AlternateStack, AlternateStack) = ([0, SS_DISABLE, 0], [0; 3]);
    // SAFETY: both are live locals; the thread is on its hook stack.
    let done = unsafe { syscall!(nr::SIGALTSTACK, off.as_ptr(), former.as_mut_ptr()) };
    if done.is_ok() && former[1] & SS_DISABLE == 0 {
        former
    } else {
        [0; 3]
    }
}

/// See [`borrow_alternate_stack`].
pub(crate) fn return_alternate_stack(stack: &AlternateStack) {
    // SAFETY: the program's own stack, as it had set it.
    let done = unsafe { syscall!(nr::SIGALTSTACK, stack.as_ptr(), 0) };
    debug_assert!(done.is_ok());
}
