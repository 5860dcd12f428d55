//! What one call of a reader takes: bytes allocated at a time, processor time, and whether it ever comes back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts what each thread allocates at a time.
struct Counting;

thread_local! {
    /// What this thread has allocated and not given back; what it gave back of others' counts too.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn take(bytes: usize) {
    // A thread that ends gives back memory after its locals have gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes as i64);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn give(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get() - bytes as i64));
}

#[allow(unsafe_code, reason = "an allocator has no other form; each call goes to the system's as it is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Where it moves, both are there.
        take(size);
        give(layout.size());
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give(layout.size());
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a call came to.
pub(crate) struct Measured<T> {
    /// Its result, or what it panicked with.
    pub(crate) result: Result<T, String>,
    /// Of this thread: others that the machine gives its processors to do not count.
    pub(crate) time: Duration,
    pub(crate) peak_bytes: u64,
}

/// Processor time of this thread.
#[allow(unsafe_code, reason = "the kernel writes to a place of this function; `getrusage` counts in ticks")]
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the kernel counts");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Calls `work` and measures it.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> Measured<T> {
    let (began, before) = (now(), HELD.get());
    PEAK.set(before);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let (time, peak) = (now() - began, PEAK.get());
    let result = result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    });
    Measured { result, time, peak_bytes: (peak - before) as u64 }
}

/// Ends the process, with a word, when a call does not come back: nothing else ends a loop.
pub(crate) struct Watch {
    began: Instant,
    /// Milliseconds after `began` at which the call that runs began; 0 while none does.
    running: AtomicU64,
}

/// Far beyond what any call takes on a machine that is busy with other work.
const NEVER: Duration = Duration::from_secs(120);

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { began: Instant::now(), running: AtomicU64::new(0) }
    }

    fn millis(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    pub(crate) fn begin(&self) {
        self.running.store(self.millis(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.running.store(0, Ordering::Relaxed);
    }

    /// Called now and then by another thread.
    pub(crate) fn look(&self, what: &str) {
        let since = self.running.load(Ordering::Relaxed);
        if since > 0 && self.millis().saturating_sub(since) > NEVER.as_millis() as u64 {
            eprintln!("{what}: a file is read for ever");
            std::process::abort();
        }
    }
}
