//! Freed memory that stays with the process.
//!
//! glibc hands large blocks back to the system as soon as they are freed, and the system fills every page with zeros when it gives
//! them out again. A training step frees and allocates its tensors anew, so that this happens to each of them in each step.
use std::sync::Once;

/// From here on glibc keeps what is freed, so that the process's memory stays at its peak. Once for a process; not where the
/// user has set [other thresholds](told_otherwise), and not with another C library.
pub fn keep_freed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !told_otherwise() {
            tell_glibc();
        }
    });
}

/// Whether the environment has `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_` or tunables of glibc's heap.
pub fn told_otherwise() -> bool {
    let set = |name| std::env::var_os(name).is_some();
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    set("MALLOC_MMAP_THRESHOLD_") || set("MALLOC_TRIM_THRESHOLD_") || tunables.contains("glibc.malloc.")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tell_glibc() {
    /// Largest threshold that older versions take.
    const OLDER: i32 = 32 << 20;
    // SAFETY: mallopt takes two integers, locks the heap while it changes a setting, and refuses what it does not know.
    unsafe {
        if libc::mallopt(libc::M_MMAP_THRESHOLD, i32::MAX) == 0 {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OLDER);
        }
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tell_glibc() {}
