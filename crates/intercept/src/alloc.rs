//! placeholder
/// x
pub struct HostAlloc;
