//! What the file systems of the ranks are to keep free, so that a pool on a full one can still be
//! changed, above all emptied.
//!
//! A checkpoint appends frames, and now and then a rank's frames are written anew beside the old
//! ones. Data takes no space that this needs: the free space is to hold three times what all frames
//! can take, of which appending uses up two before the rest is needed to write them anew, which
//! gives back what was appended. Others on the file system may take it all the same; then changes end once the
//! log is full, and what gives something back gets the last part of it.

use crate::frames::FRAME_BYTES;
use crate::layout::header;
use crate::limits::at;
use crate::log::LOG_FILE_HEADER;
use crate::pool::Pool;
use sys::Result;

impl Pool {
    /// Bytes that the newest frames of all ranks take at most.
    fn live_frames(&self) -> Result<u64> {
        let pages = self.load(header::FRONTIER)?.min(at::PAGES_MAX);
        Ok(pages * FRAME_BYTES * self.load(header::LOG_PLACES)?.max(1))
    }

    /// Bytes that somebody without privileges may still take where rank `r` lies. No limit if it
    /// cannot be told.
    fn free_bytes(&self, r: u16) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.rank_dir(r)?);
        Ok(stat.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Bytes that copies of the log may still take.
    fn growing_copies(&self) -> Result<u64> {
        let copies = self.load(header::LOG_PLACES)?.max(1) - 1;
        let whole = LOG_FILE_HEADER + self.load(header::LOG_BYTES)?;
        let mut growing = 0;
        for other in self.ranks_for_copies()?.take(copies as usize) {
            let file = self
                .rank_dir(other)?
                .join(crate::door::RankFile::Log.name());
            let taken = rustix::fs::stat(&file).map_or(0, |stat| stat.st_blocks as u64 * 512);
            growing += whole.saturating_sub(taken);
        }
        Ok(growing)
    }

    /// Whether rank `r` can take `bytes` more of data.
    pub(crate) fn has_room_for(&self, r: u16, bytes: u64) -> Result<bool> {
        let kept = 3 * self.live_frames()? + self.growing_copies()?;
        Ok(self.free_bytes(r)? >= bytes.saturating_add(kept))
    }

    /// Whether the frames of rank `r`, `end` bytes, should be written anew to give space back.
    pub(crate) fn is_frame_space_short(&self, r: u16, end: u64) -> Result<bool> {
        let live = self.live_frames()?;
        Ok(end > live / u64::from(self.rank_count()) && self.free_bytes(r)? < 3 * live)
    }
}
