//! `ioctl(2)`: the few requests that regular files know.

use crate::dispatch::{Served, Stop};
use crate::{files, user};
use intercept::Call;
use sys::Errno;

/// `ioctl(2)` on a file of ours.
pub(crate) fn ioctl(c: &mut Call) -> Served {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIONREAD: u32 = 0x541b;
    const FIGETBSZ: u32 = 2;
    const O_NONBLOCK: u32 = crate::abi::O_NONBLOCK;
    let request = c.args[1] as u32;
    if matches!(request, FIOCLEX | FIONCLEX) {
        // About the descriptor, not the file: the kernel keeps that flag.
        return Err(Stop::Pass);
    }
    let held = files::ours(c.args[0] as i32)?;
    let info = held.info()?;
    match request {
        FIONREAD => {
            let size = held.fs.stat(info.ino)?.size;
            let left = size.saturating_sub(info.offset).min(i32::MAX as u64) as i32;
            user::put(c.args[2], &left)?;
        }
        FIONBIO => {
            let on: i32 = user::get(c.args[2])?;
            let flags = if on != 0 {
                info.flags | O_NONBLOCK
            } else {
                info.flags & !O_NONBLOCK
            };
            held.fs.set_flags(held.ofd, flags)?;
        }
        FIGETBSZ => user::put(c.args[2], &4096i32)?,
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
}
