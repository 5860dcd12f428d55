//! A decoder that panics costs one image: the panic becomes a fault, and prints nothing.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::fault;
use crate::stage::Fault;

thread_local! {
    /// True while this thread runs a decoder.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder. The default hook would print a panic message and perhaps a backtrace per hostile file, so
/// the first call puts a hook in front of it that keeps still while this thread is in here.
pub(super) fn guard<T>(decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                outer(info);
            }
        }));
    });
    GUARDED.set(true);
    // Nothing outlives the closure but its result, so a half-changed state cannot be seen.
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(false);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(fault(format_args!("decoder panicked: {}", text.unwrap_or("no message"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault_and_the_next_image_decodes() {
        let refused = guard::<u32>(|| panic!("index {} out of range", 7)).unwrap_err();
        assert_eq!(refused.to_string(), "decode: decoder panicked: index 7 out of range");
        assert_eq!(guard(|| Ok(1)), Ok(1));
        assert!(!GUARDED.get());
    }
}
