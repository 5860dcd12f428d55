//! A panic in a library that reads the bytes of others costs one file: it becomes a text, and prints nothing.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// True while this thread reads what may be hostile.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a reader. Decoders of images and the Parquet crate assert of a file what a hostile one does not keep, in places
/// that nobody has counted; what they panic with is the error.
///
/// The default hook would print a panic message and perhaps a backtrace per hostile file, so the first call puts a hook
/// in front of it that keeps still while this thread is in here.
///
/// # Errors
/// The panic's message.
pub fn guard<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                outer(info);
            }
        }));
    });
    let outside = GUARDED.replace(true);
    // Nothing outlives the closure but its result, so a half-changed state cannot be seen.
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(outside);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("no message").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_text_and_the_next_file_is_read() {
        assert_eq!(guard::<u32>(|| panic!("index {} out of range", 7)), Err("index 7 out of range".into()));
        assert_eq!(guard(|| guard::<u32>(|| panic!("inner"))), Ok(Err("inner".into())));
        assert_eq!(guard(|| 1), Ok(1));
        assert!(!GUARDED.get());
    }
}
