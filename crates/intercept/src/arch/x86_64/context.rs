//! The saved state of an interrupted thread (`struct ucontext`), as a signal handler sees it.

use crate::{Call, image, install};
use core::sync::atomic::Ordering;

const R8: usize = 40;
const R9: usize = 48;
const R10: usize = 56;
const RDI: usize = 104;
const RSI: usize = 112;
const RDX: usize = 136;
const RAX: usize = 144;
const RSP: usize = 160;
const RIP: usize = 168;
const SIGMASK: usize = 296;
/// What a stub's call of the gate puts on the program's stack: red zone and return address.
const STUB_BYTES: usize = 128 + 8;

/// A handler's third argument.
pub(crate) struct Context(*mut u8);

/// What [`Context::show_original`] changed.
pub(crate) struct Moved {
    real: [usize; 2],
    shown: [usize; 2],
}

impl Context {
    /// # Safety
    /// `context` must be a handler's third argument, while the handler runs.
    pub(crate) unsafe fn new(context: *mut u8) -> Context {
        Context(context)
    }

    fn word(&self, at: usize) -> *mut usize {
        self.0.wrapping_add(at).cast()
    }

    fn get(&self, at: usize) -> usize {
        // SAFETY: `new` promises a context, which has this word.
        unsafe { self.word(at).read() }
    }

    fn set(&self, at: usize, value: usize) {
        // SAFETY: as above; handlers may change it.
        unsafe { self.word(at).write(value) }
    }

    /// The signal mask that returns with the handler.
    pub(crate) fn mask(&self) -> u64 {
        self.get(SIGMASK) as u64
    }

    pub(crate) fn set_mask(&self, mask: u64) {
        self.set(SIGMASK, mask as usize);
    }

    pub(crate) fn stack_pointer(&self) -> usize {
        self.get(RSP)
    }

    /// # Safety
    /// Code at `address` must be able to go on with this stack pointer.
    pub(crate) unsafe fn go_on_at(&self, address: usize, stack_pointer: usize) {
        self.set(RIP, address);
        self.set(RSP, stack_pointer);
    }

    /// The system call at which the thread trapped.
    pub(crate) fn call(&self) -> Call {
        let args = [RDI, RSI, RDX, R10, R8, R9].map(|at| self.get(at));
        Call {
            nr: self.get(RAX),
            args,
        }
    }

    pub(crate) fn instruction_pointer(&self) -> usize {
        self.get(RIP)
    }

    pub(crate) fn set_number(&self, number: usize) {
        self.set(RAX, number);
    }

    pub(crate) fn set_result(&self, result: isize) {
        self.set(RAX, result as usize);
    }

    pub(crate) fn set_first_argument(&self, value: usize) {
        self.set(RDI, value);
    }

    pub(crate) fn set_second_argument(&self, value: usize) {
        self.set(RSI, value);
    }

    /// Makes the thread call `address` as a stub would, and then go on where it trapped.
    ///
    /// # Safety
    /// `address` is one of `Trapped`.
    pub(crate) unsafe fn call_in_gate(&self, address: usize) {
        let sp = self.get(RSP) - STUB_BYTES;
        // SAFETY: below the red zone of the interrupted thread.
        unsafe { (sp as *mut usize).write(self.get(RIP)) };
        self.set(RSP, sp);
        self.set(RIP, address);
    }

    /// If the thread faulted where the gate reads a path: lets the dispatcher see the call, and
    /// returns true.
    pub(crate) fn fix_up_path(&self) -> bool {
        let (read, fault) = super::path_read();
        let hit = self.get(RIP) == read;
        if hit {
            self.set(RIP, fault);
        }
        hit
    }

    /// If the thread was in a system call made by a stub, shows the program the address that call
    /// has in its text: unwinders know it, and glibc compares it when a thread is cancelled.
    ///
    /// # Safety
    /// As for [`Context::new`].
    pub(crate) unsafe fn show_original(&self) -> Option<Moved> {
        let real = [self.get(RIP), self.get(RSP)];
        let (call, sp) = match super::native_in_gate(real[0]) {
            // In the gate: the stub is the one that called it.
            Some((_, above)) => {
                let top = real[1] + above;
                // SAFETY: at those instructions the return address lies there on the stack.
                (unsafe { (top as *const usize).read() }, top + STUB_BYTES)
            }
            None => (real[0], real[1]),
        };
        let behind = super::native_in_gate(real[0]).map(|(behind, _)| behind);
        let address = original(call, behind)?;
        let shown = [address, sp];
        self.set(RIP, shown[0]);
        self.set(RSP, shown[1]);
        Some(Moved { real, shown })
    }

    /// Puts back what `show_original` changed, unless the program's handler changed it further.
    ///
    /// # Safety
    /// As for [`Context::new`], in the same handler.
    pub(crate) unsafe fn undo(&self, moved: &Moved) {
        if [self.get(RIP), self.get(RSP)] == moved.shown {
            self.set(RIP, moved.real[0]);
            self.set(RSP, moved.real[1]);
        }
    }
}

/// The address in the text that belongs to `address` in a stub. With `gate`, the thread is in the
/// gate, that many bytes behind the start of its `syscall` instruction, and `address` is where
/// it returns to.
fn original(address: usize, gate: Option<usize>) -> Option<usize> {
    for module in &install::INSTALLED {
        let stubs = module.stubs.load(Ordering::Acquire);
        let len = module.stubs_len.load(Ordering::Relaxed);
        if module.text.load(Ordering::Acquire) == 0 || address.wrapping_sub(stubs) >= len {
            continue;
        }
        let offset = (address - stubs) as u32;
        let count = module.site_count.load(Ordering::Relaxed);
        let head = module.head.load(Ordering::Relaxed);
        // SAFETY: head and table of an installed image stay mapped; the table was checked.
        let head =
            unsafe { core::slice::from_raw_parts(head as *const u8, image::head_len(count)) };
        // Stubs lie in the order of the table: the last that begins at or before the offset.
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            match image::record(head, middle)?.stub <= offset {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let site = image::record(head, low.checked_sub(1)?)?;
        let behind = match gate {
            Some(behind) => behind,
            None => match offset.checked_sub(site.native)? {
                behind @ (0 | 2) => behind as usize,
                _ => return None,
            },
        };
        let text = module.text.load(Ordering::Acquire);
        return Some(text + site.start as usize + usize::from(site.syscall_at) + behind);
    }
    None
}
