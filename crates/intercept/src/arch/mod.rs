//! Everything that depends on the processor, behind one interface: `analyse`, `stubs`, the gate,
//! the thread block's address and the layout of signal frames.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::nr;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("interception exists for x86-64 only so far");
